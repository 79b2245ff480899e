//! Gives the shared library the name that programs look for first: once it is loaded, `dlopen("libnvjpeg.so")` finds it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnvjpeg.so");
    println!("cargo::rerun-if-changed=build.rs");
}
