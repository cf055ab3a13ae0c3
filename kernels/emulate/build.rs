//! Compiles the CUDA kernels as C++, instrumented, and the runtime, not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let kernels = here.parent().expect("the crate lies in kernels/");
    let mut sources = cuda_files(kernels);
    sources.extend(cuda_files(&here.join("probes")));
    for watched in ["runtime", "device", "probes"] {
        println!("cargo:rerun-if-changed={}", here.join(watched).display());
    }
    println!("cargo:rerun-if-changed={}", kernels.display());

    let table = out.join("table.cpp");
    std::fs::write(&table, table_of(&sources)).expect("the build's own folder is writable");

    let mut runtime = base();
    // Sums of tensor cores are most of what the runtime does: unrolled.
    runtime
        .opt_level(3)
        .include(&here)
        .files(
            [
                "fibers",
                "judge",
                "host",
                "matrix",
                "warpgroup",
                "arithmetic",
                "numbers",
                "traffic",
            ]
            .map(|name| here.join(format!("runtime/{name}.cpp"))),
        )
        .file(&table)
        .compile("emulated_runtime");

    // Optimised, or a matrix product crawls; without the passes that would merge accesses that the judge should see.
    let mut kernels_build = base();
    kernels_build
        .include(kernels)
        .include(here.join("device"))
        .define("MIXGATE_EMULATED", None)
        .flag("-fsanitize=thread")
        .flag("-fno-tree-vectorize")
        .flag("-fno-inline-small-functions")
        .flag("-ffp-contract=off")
        .flag("-Wno-unknown-pragmas")
        .flag("-Wno-tsan")
        .flag("-x")
        .flag("c++");
    // `cc` knows a `.cu` as nvcc's: each is reached through a C++ file of its own.
    for source in &sources {
        let name = source.file_stem().expect("it has a name").to_string_lossy();
        let door = out.join(format!("{name}.kernel.cpp"));
        std::fs::write(&door, format!("#include \"{}\"\n", source.display()))
            .expect("the build's own folder is writable");
        kernels_build.file(door);
    }
    kernels_build.compile("emulated_kernels");
    // The two need each other: once more, for linkers that read libraries in order.
    println!("cargo:rustc-link-lib=static=emulated_runtime");
}

fn base() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").opt_level(2).debug(false);
    build
}

fn cuda_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|it| it == "cu"))
        .collect();
    files.sort();
    files
}

/// The kernels that say `EMULATED(name)`, so that the linker takes them and the runtime finds them.
fn table_of(sources: &[PathBuf]) -> String {
    let mut names = Vec::new();
    for source in sources {
        let text = std::fs::read_to_string(source).expect("it can be read");
        let marks = text
            .lines()
            .filter_map(|line| line.strip_prefix("EMULATED("));
        names.extend(marks.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    let mut table = String::from("#include \"device/emulate.h\"\nextern \"C\" {\n");
    for name in &names {
        writeln!(table, "extern const emulated::Entry emulated_entry_{name};").expect("a string");
    }
    table += "extern const emulated::Entry *const emulated_entries[];\nextern const unsigned emulated_entry_count;\n";
    table += "const emulated::Entry *const emulated_entries[] = {\n";
    for name in &names {
        writeln!(table, "  &emulated_entry_{name},").expect("a string");
    }
    writeln!(
        table,
        "}};\nconst unsigned emulated_entry_count = {};\n}}",
        names.len()
    )
    .expect("a string");
    table
}
