//! Sums as text: for people, for spreadsheets, for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// One row: names, then requests, prompt, cached, completion and total tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) names: Vec<Option<String>>,
    pub(super) numbers: [u64; 5],
}

/// Columns as wide as they must be, numbers to the right, a sum below.
pub(super) fn table(columns: &[&str], lines: &[Line]) -> String {
    if lines.is_empty() {
        return "no requests in this time\n".to_owned();
    }
    let header = columns.iter().chain(&SHORT).map(|name| (*name).to_owned());
    let cells = |line: &Line| -> Vec<String> {
        let names = line
            .names
            .iter()
            .map(|name| name.clone().unwrap_or_else(|| "-".to_owned()));
        names
            .chain(line.numbers.iter().map(u64::to_string))
            .collect()
    };
    let mut sum = Line {
        names: vec![Some(String::new()); columns.len()],
        numbers: [0; 5],
    };
    sum.names[0] = Some("total".to_owned());
    for line in lines {
        for (sum, part) in sum.numbers.iter_mut().zip(line.numbers) {
            *sum += part;
        }
    }
    let mut rows: Vec<Vec<String>> = vec![header.collect()];
    rows.extend(lines.iter().map(cells));
    rows.push(cells(&sum));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let padded = row.iter().zip(&widths).enumerate();
        let padded = padded.map(|(at, (cell, &width))| match at < columns.len() {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// RFC 4180, but for its line ends.
pub(super) fn csv(columns: &[&str], lines: &[Line]) -> String {
    let mut text = columns
        .iter()
        .chain(&LONG)
        .copied()
        .collect::<Vec<_>>()
        .join(",");
    text.push('\n');
    for line in lines {
        let names = line
            .names
            .iter()
            .map(|name| field(name.as_deref().unwrap_or_default()));
        let all: Vec<String> = names
            .chain(line.numbers.iter().map(u64::to_string))
            .collect();
        let _ = writeln!(text, "{}", all.join(","));
    }
    text
}

fn field(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// One object a line, so that a diff of two is readable.
pub(super) fn json(columns: &[&str], lines: &[Line]) -> String {
    let object = |line: &Line| -> String {
        let names = columns
            .iter()
            .zip(&line.names)
            .map(|(name, value)| (*name, json!(value)));
        let numbers = LONG.into_iter().zip(line.numbers.map(Value::from));
        let object: Map<String, Value> = names
            .chain(numbers)
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        format!("  {}", Value::Object(object))
    };
    match lines {
        [] => "[]\n".to_owned(),
        lines => format!(
            "[\n{}\n]\n",
            lines.iter().map(object).collect::<Vec<_>>().join(",\n")
        ),
    }
}

const SHORT: [&str; 5] = ["requests", "prompt", "cached", "completion", "total"];
const LONG: [&str; 5] = [
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "total_tokens",
];
