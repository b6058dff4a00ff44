//! Lets this crate's tests find libtorch without LD_LIBRARY_PATH.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let lib =
        std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys publishes the folder of libtorch");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
