//! Compiles `kernels/*.cu` for the `cuda` feature; without it there is nothing to do.
//!
//! Each file becomes one image that holds machine code for sm_80 (A100) and sm_90 (H100, H200), and PTX for whatever comes
//! later; what uses Hopper's own instructions, `warpgroup_*.cu`, for sm_90a alone. The images go into the binary; no CUDA
//! library is linked.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::Mutex;
use std::{env, fs, thread};

#[path = "kernels/toolkit.rs"]
mod toolkit;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    for variable in toolkit::VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| fail("OUT_DIR is not set")));
    let nvcc = find_nvcc();
    let version = version_of(&nvcc);
    println!("cargo::rustc-env=MIXGATE_CUDA_VERSION={version}");

    let mut sources: Vec<PathBuf> = fs::read_dir("kernels")
        .unwrap_or_else(|error| fail(&format!("cannot read kernels/: {error}")))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    compile_all(&nvcc, &sources, &out);
    let table = sources.iter().fold(String::new(), |mut table, source| {
        let kernels = kernels_of(source);
        let image = image_of(source, &out);
        let is_for_hopper = is_for_hopper(source);
        let line = format!(
            "Image {{ kernels: &{kernels:?}, is_for_hopper: {is_for_hopper}, fatbin: include_bytes!({image:?}) }},"
        );
        let _ = writeln!(table, "{line}");
        table
    });
    let table = format!("pub(super) static IMAGES: &[Image] = &[\n{table}];\n");
    fs::write(out.join("images.rs"), table)
        .unwrap_or_else(|error| fail(&format!("cannot write images.rs: {error}")));
}

/// Compiles on as many threads as cargo allows.
fn compile_all(nvcc: &Path, sources: &[PathBuf], out: &Path) {
    let threads = env::var("NUM_JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok())
        .unwrap_or(1);
    let waiting = Mutex::new(sources.to_vec());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.pop());
    thread::scope(|scope| {
        for _ in 0..usize::min(threads, sources.len()) {
            scope.spawn(|| {
                while let Some(source) = next() {
                    compile(nvcc, &source, &image_of(&source, out));
                }
            });
        }
    });
}

fn compile(nvcc: &Path, source: &Path, image: &Path) {
    let architectures: &[&str] = match is_for_hopper(source) {
        true => &["arch=compute_90a,code=sm_90a"],
        false => &[
            "arch=compute_80,code=sm_80",
            "arch=compute_90,code=[sm_90,compute_90]",
        ],
    };
    let output = Command::new(nvcc)
        .args(["-fatbin", "-std=c++17", "-O3"])
        .args(
            architectures
                .iter()
                .flat_map(|architecture| ["-gencode", architecture]),
        )
        .arg("-o")
        .args([image, source])
        .output()
        .unwrap_or_else(|error| fail(&format!("cannot run {}: {error}", nvcc.display())));
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        fail(&format!("nvcc refused {}:\n{said}", source.display()));
    }
}

fn is_for_hopper(source: &Path) -> bool {
    let name = source.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("warpgroup_")
}

fn image_of(source: &Path, out: &Path) -> PathBuf {
    out.join(source.file_name().unwrap_or_default())
        .with_extension("fatbin")
}

/// The kernels that a file has: each is named after its end, for the emulation.
fn kernels_of(source: &Path) -> Vec<String> {
    let text = fs::read_to_string(source)
        .unwrap_or_else(|error| fail(&format!("cannot read {}: {error}", source.display())));
    text.lines()
        .filter_map(|line| line.strip_prefix("EMULATED(")?.strip_suffix(')'))
        .map(str::to_owned)
        .collect()
}

fn find_nvcc() -> PathBuf {
    let search_path = env::var_os("PATH").unwrap_or_default();
    let said = toolkit::VARIABLES.iter().filter_map(env::var_os);
    let candidates = toolkit::candidates(said, &search_path);
    let found = candidates.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| fail(&toolkit::missing()))
}

/// Such as `13.0`.
fn version_of(nvcc: &Path) -> String {
    let output = Command::new(nvcc)
        .arg("--version")
        .output()
        .unwrap_or_else(|error| fail(&format!("cannot run {}: {error}", nvcc.display())));
    let said = String::from_utf8_lossy(&output.stdout);
    let version = toolkit::version(&said).unwrap_or_else(|problem| fail(&problem));
    version.to_owned()
}

fn fail(problem: &str) -> ! {
    eprintln!("error: {problem}");
    exit(1)
}
