//! Compiles the libtorch shim, and puts libtorch's folder into the run path of everything this crate links, so that no
//! `LD_LIBRARY_PATH` is needed.

use std::path::{Path, PathBuf};

const SHIM: [&str; 5] = [
    "src/libtorch/shim.cpp",
    "src/libtorch/attention.cpp",
    "src/libtorch/linear.cpp",
    "src/libtorch/checkpoint.cpp",
    "src/libtorch/memory.cpp",
];
const KERNEL: &str = "src/libtorch/attention_kernel.cpp";
const HEADERS: [&str; 2] = ["src/libtorch/shim.h", "src/libtorch/attention.h"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for file in SHIM.iter().chain(&HEADERS).chain(&[KERNEL]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where libtorch lies");
    let lib = std::fs::canonicalize(&lib).unwrap_or_else(|err| panic!("{lib}: {err}; run `make setup` first"));
    let include = PathBuf::from(&lib).join("../include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false) // libtorch's headers are not ours to mend.
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(SHIM)
        .compile("dbp_shim");
    compile_kernel();
    // Behind the shim on the linker's command line, which resolves from left to right.
    for library in ["torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib={library}");
    }
    println!("cargo:rustc-env=DBP_LIBTORCH_VERSION={}", libtorch_version(&lib));
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

/// As the folder says it: `build-version` in libtorch's own archives, `version.py` in a wheel.
fn libtorch_version(lib: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(lib.join("..").join(name)).ok();
    let wheel = || {
        read("version.py")?
            .lines()
            .find_map(|line| Some(line.strip_prefix("__version__ = '")?.trim_end_matches('\'').to_owned()))
    };
    read("build-version").map(|text| text.trim().to_owned()).or_else(wheel).unwrap_or_else(|| "unknown".to_owned())
}

/// The attention kernel for every set of instructions that it chooses from when it runs.
fn compile_kernel() {
    let mut sets: Vec<(&str, &[&str])> = vec![("", &[])];
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        sets.push(("_avx2", &["-mavx2", "-mfma"]));
    }
    for (suffix, flags) in sets {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").warnings(false).file(KERNEL).opt_level(3); // Its loops rely on it, however the rest is built.
        build.flag("-ffp-contract=fast").define("SUFFIX", suffix).flags(flags);
        build.compile(&format!("dbp_attention{suffix}"));
    }
}
