//! The build script as a process: what it says of a compiler that is missing or too old. Compiled alone, in a second or two.

use std::path::Path;
use std::process::Command;

use super::harness::Said;

/// The script, run as cargo does for `--features cuda`, where nothing but `folder` holds a toolkit.
fn run(script: &Path, folder: &Path) -> Said {
    let output = Command::new(script)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .env("CARGO_FEATURE_CUDA", "1")
        .env("OUT_DIR", folder)
        .env("PATH", "/nowhere")
        .env("CUDA_HOME", folder)
        .output();
    Said::from(output.unwrap())
}

#[cfg(unix)]
fn pretend(folder: &Path, release: &str) {
    use std::os::unix::fs::PermissionsExt;
    let nvcc = folder.join("bin/nvcc");
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    let said = format!("Cuda compilation tools, release {release}, V{release}.99");
    std::fs::write(&nvcc, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
    std::fs::set_permissions(nvcc, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_compiler_that_is_missing_or_too_old_is_one_readable_error() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("build-script");
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-o"])
        .args([
            &script,
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs"),
        ])
        .output()
        .unwrap();
    let said = Said::from(compiled);
    assert_eq!(said.code, Some(0), "{}", said.stderr);

    if !Path::new("/usr/local/cuda/bin/nvcc").exists() {
        let said = run(&script, folder.path());
        assert_eq!(
            said.stderr,
            "error: the `cuda` feature needs NVIDIA's compiler, nvcc, of CUDA 12.4 or newer, and it was not found\n\
             hint: install the CUDA toolkit, or set CUDA_HOME to the folder that has bin/nvcc; a GPU is not needed\n\
             hint: without the feature, `cargo build --release` makes a server for the CPU\n"
        );
        assert_eq!(said.code, Some(1));
    }
    for (release, is_taken) in [
        ("11.8", false),
        ("12.3", false),
        ("12.4", true),
        ("13.0", true),
    ] {
        pretend(folder.path(), release);
        let said = run(&script, folder.path());
        let refusal = format!(
            "error: the `cuda` feature needs nvcc of CUDA 12.4 or newer, this one is of {release}\n\
             hint: install a newer CUDA toolkit, or set CUDA_HOME to the folder of one that has bin/nvcc\n"
        );
        let version = format!("cargo::rustc-env=MIXGATE_CUDA_VERSION={release}\n");
        assert_eq!(said.stdout.contains(&version), is_taken, "{}", said.stdout);
        if !is_taken {
            assert_eq!(said.stderr, refusal);
            assert_eq!(said.code, Some(1));
        }
    }
    pretend(folder.path(), "unknown");
    let said = run(&script, folder.path());
    assert!(
        said.stderr
            .starts_with("error: nvcc does not say its version:\nCuda compilation tools"),
        "{}",
        said.stderr
    );
}
