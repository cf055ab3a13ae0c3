use std::time::Duration;

use clap::Parser;
use serde_json::json;

use super::measuring::measure_on;
use super::*;
use crate::bench::kernels::{Effort, Shape};
use crate::ops::Device;
use crate::ops::test_device::TestDevice;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    kernels: BenchKernels,
}

fn typed(words: &[&str]) -> Result<BenchKernels, clap::Error> {
    let words = std::iter::once("kernels").chain(words.iter().copied());
    Line::try_parse_from(words).map(|line| line.kernels)
}

#[test]
fn a_gpu_and_numbers_of_rows_can_be_chosen() {
    let usual = typed(&[]).unwrap();
    assert_eq!(usual.device, 0);
    assert_eq!(usual.rows, [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096]);
    let chosen = typed(&["--device", "cuda:3", "--rows", "5,6"]).unwrap();
    assert_eq!((chosen.device, chosen.rows), (3, vec![5, 6]));
    for wrong in [["--device", "cpu"], ["--device", "cuda:x"], ["--rows", "0"]] {
        assert!(typed(&wrong).is_err(), "{wrong:?}");
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_binary_for_the_cpu_says_so() {
    let failure = run(&typed(&["--device=cuda:1"]).unwrap(), &mut Vec::new()).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "error: cuda:1 was asked for, but this binary was built for the CPU alone\n\
         hint: build it with `cargo build --release --features cuda`"
    );
}

#[test]
fn the_table_and_the_file_hold_every_row() {
    let shape = Shape {
        hidden: 256,
        intermediate: 256,
        heads: 4,
        kv_heads: 1,
        head_dim: 64,
        vocab: 32,
        experts: 2,
        top_k: 1,
        block_size: 16,
        contexts: vec![20],
        least_prompt: 64,
        cached: 20,
        most_chunk: 1024,
        most_logit_rows: 256,
        least_library_rows: 64,
    };
    let effort = Effort {
        copy_bytes: 1024,
        matrix_width: 32,
        cold_bytes: 1,
        most_sets: 2,
        graph_time: Duration::ZERO,
        replays: 1,
        // Weights do not fit.
        room: 20_000,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernels.json");
    let typed = BenchKernels {
        device: 0,
        rows: vec![2],
        only: Vec::new(),
        shape: "mixtral-8x7b".to_owned(),
        brief: false,
        json: Some(path.clone()),
    };
    let mut table = Vec::new();
    let (device, missing) = (TestDevice::default(), "it is not installed".to_owned());
    let devices = (&device, Err(missing.clone()));
    measure_on(devices, &typed, &shape, &effort, &mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["benchmark"], "kernels");
    assert_eq!(document["device"], TestDevice::default().describe());
    assert!(document["machine"]["cpus"].as_u64().unwrap() > 0);
    assert!(document["ceilings"]["copy_gb_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(document["ceilings"]["library_missing"], missing);
    assert_eq!(document["ceilings"]["library_tflop_per_s"], json!(null));
    assert_eq!(document["complete"], true);
    let list = |key: &str| document[key].as_array().unwrap().clone();
    let (rows, skipped) = (list("rows"), list("skipped"));
    assert!(!rows.is_empty() && !skipped.is_empty());
    // A line about the device, three about ceilings, the header.
    assert_eq!(table.lines().count(), 5 + rows.len() + skipped.len());
    assert_eq!(
        table.lines().filter(|line| line.starts_with("  ")).count(),
        table.lines().count() - 1
    );
    assert!(table.contains("cuBLASLt not measured (it is not installed); datasheet unknown"));
    let norm = rows
        .iter()
        .find(|row| row["name"] == "add_rms_norm")
        .unwrap();
    assert_eq!(norm["bytes"], 2 * 256 * 14 + 1024);
    assert_eq!(norm["bound"], "memory");
    let printed = table.lines().find(|line| line.contains("add_rms_norm"));
    assert!(printed.unwrap().contains("% memory"), "{table}");
    assert_eq!(table.matches("does not fit").count(), skipped.len());

    // A run that is stopped leaves what it had measured.
    let mut full = Full(6);
    let devices = (&device, Err(missing.clone()));
    measure_on(devices, &typed, &shape, &effort, &mut full).unwrap_err();
    let text = std::fs::read_to_string(typed.json.as_ref().unwrap()).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["complete"], false);
    let known = ["rows", "skipped"].map(|key| document[key].as_array().unwrap().len());
    assert!((1..5).contains(&known.into_iter().sum::<usize>()));

    let other = BenchKernels {
        only: vec!["norm".to_owned(), "attn".to_owned()],
        ..typed
    };
    let devices = (&device, Err(missing));
    let failure = measure_on(devices, &other, &shape, &effort, &mut Vec::new()).unwrap_err();
    let failure = failure.to_string();
    assert!(
        failure
            .starts_with("error: no kernel's name has \"attn\" in it\nhint: there are embedding, ")
    );
}

/// Takes so many lines.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        self.0 = self
            .0
            .checked_sub(lines)
            .ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
