//! Gives the shared library the name that programs look for: once it is loaded, `dlopen("libcuda.so.1")` finds it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
