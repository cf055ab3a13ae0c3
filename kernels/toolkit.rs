// Where nvcc is looked for, which versions will do, and what is said otherwise. The build script has it, and a test.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variables that may name the toolkit's folder, the first one first.
pub const VARIABLES: [&str; 3] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"];

/// Places where nvcc may be, in the order in which they are tried: where the toolkit is said to be, then the search path, then
/// where its installer puts it.
pub fn candidates(said: impl Iterator<Item = OsString>, search_path: &OsStr) -> Vec<PathBuf> {
    said.map(|folder| Path::new(&folder).join("bin/nvcc"))
        .chain(env::split_paths(search_path).map(|folder| folder.join("nvcc")))
        .chain([PathBuf::from("/usr/local/cuda/bin/nvcc")])
        .collect()
}

/// The version in what `nvcc --version` says, such as `13.0`, if it is new enough.
///
/// # Errors
/// What is wrong with it, with what to do.
pub fn version(said: &str) -> Result<&str, String> {
    let version = said
        .split("release ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let numbers = version.and_then(|version| {
        let (major, minor) = version.trim().split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let (Some(version), Some(numbers)) = (version, numbers) else {
        return Err(format!("nvcc does not say its version:\n{said}"));
    };
    if numbers < OLDEST {
        return Err(format!(
            "the `cuda` feature needs nvcc of CUDA {}.{} or newer, this one is of {version}\n\
             hint: install a newer CUDA toolkit, or set CUDA_HOME to the folder of one that has bin/nvcc",
            OLDEST.0, OLDEST.1
        ));
    }
    Ok(version)
}

/// What is said if there is none.
pub fn missing() -> String {
    format!(
        "the `cuda` feature needs NVIDIA's compiler, nvcc, of CUDA {}.{} or newer, and it was not found\n\
         hint: install the CUDA toolkit, or set CUDA_HOME to the folder that has bin/nvcc; a GPU is not needed\n\
         hint: without the feature, `cargo build --release` makes a server for the CPU",
        OLDEST.0, OLDEST.1
    )
}

/// `mma` on E4M3 is of PTX 8.4, which came with CUDA 12.4.
const OLDEST: (u32, u32) = (12, 4);
