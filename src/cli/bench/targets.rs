//! `mixgate bench targets`: what a GPU was meant to reach, and what it has.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::results::Results;
use crate::bench::targets::judge;
use crate::cli::Failure;

/// What can be typed after `mixgate bench targets`.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct BenchTargets {
    /// Results of scripts/gpu-check/run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Also write the verdicts to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Reads and judges.
pub(super) fn run(typed: &BenchTargets, out: &mut dyn Write) -> Result<(), Failure> {
    let cannot = |error: &dyn std::error::Error| {
        Failure::new(format!("cannot read {}", typed.file.display())).caused_by(error)
    };
    let text = fs::read(&typed.file).map_err(|error| cannot(&error))?;
    let results: Value = serde_json::from_slice(&text).map_err(|error| cannot(&error))?;
    let targets = judge(&results);
    writeln!(
        out,
        "  {:<41}  {:<29}  {:<12}  measured",
        "target", "aim", "verdict"
    )?;
    for it in &targets {
        writeln!(
            out,
            "  {:<41}  {:<29}  {:<12}  {}",
            it.what, it.aim, it.verdict, it.measured
        )?;
    }
    let results = Results::to(typed.json.as_ref());
    results.write(
        || json!({ "benchmark": "targets", "targets": targets }),
        true,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_line_with_its_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let typed = BenchTargets {
            file: folder.path().join("in.json"),
            json: Some(folder.path().join("out.json")),
        };
        let mut table = Vec::new();
        let missing = run(&typed, &mut table).unwrap_err().to_string();
        assert!(missing.starts_with("error: cannot read "), "{missing}");
        fs::write(&typed.file, "{}").unwrap();
        run(&typed, &mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert_eq!(table.matches("not measured").count(), 8, "{table}");
        let written: Value =
            serde_json::from_slice(&fs::read(typed.json.unwrap()).unwrap()).unwrap();
        assert_eq!(written["targets"][0]["verdict"], "not_measured");
    }
}
