//! Gives the shared library the name that programs look for: once it is loaded, `dlopen("libcuda.so.1")` finds it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // It has a thread and a function that runs at exit; whoever closes it, as probes do, must not take them away.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
