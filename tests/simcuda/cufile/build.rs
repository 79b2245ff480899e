//! Gives the shared library the name that programs look for first: once it is loaded, `dlopen("libcufile.so")` finds it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcufile.so");
    // It has a function that runs at exit; whoever closes it, as probes do, must not take that away.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
