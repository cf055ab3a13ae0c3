//! One row per request.

use std::fmt::Write;

use crate::bench::load::Results;

/// Every request as a row, in the order of conversations and turns. Times are seconds since the start of the run.
pub fn csv(results: &Results) -> String {
    let mut text = String::from(
        "conversation,turn,scheduled,arrival,start,ttft,latency,tpot,prompt_tokens,cached_tokens,output_tokens,chunks,\
         failure\n",
    );
    for record in &results.records {
        let maybe = |value: Option<String>| value.unwrap_or_default();
        let failure = record.failure.as_ref().map(|failure| failure.kind());
        let is_good = failure.is_none();
        let _ = writeln!(
            text,
            "{},{},{:.6},{:.6},{:.6},{:.6},{:.6},{},{},{},{},{},{}",
            record.conversation,
            record.turn,
            record.scheduled,
            record.arrival,
            record.start,
            record.ttft,
            record.latency,
            maybe(
                record
                    .tpot()
                    .filter(|_| is_good)
                    .map(|tpot| format!("{tpot:.6}"))
            ),
            record.prompt_tokens,
            maybe(record.cached_tokens.map(|tokens| tokens.to_string())),
            record.output_tokens,
            record.itls.len() + usize::from(is_good),
            quoted(&maybe(failure)),
        );
    }
    text
}

/// Text that may hold commas and quotes. It comes from a server: a leading sign would be a formula in a spreadsheet.
fn quoted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let guard = if text.starts_with(['=', '+', '-', '@']) {
        "'"
    } else {
        ""
    };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::super::tests::results;
    use super::*;

    #[test]
    fn every_request_is_a_row_with_as_many_fields_as_the_head() {
        let text = csv(&results());
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 4);
        for row in &rows {
            assert_eq!(row.split(',').count(), 13, "{row}");
        }
        assert_eq!(
            rows[1],
            "0,0,0.000000,0.000000,0.000000,0.250000,1.000000,0.375000,10,,3,3,"
        );
        assert!(rows[2].ends_with("\"HTTP 503 <full>\""), "{}", rows[2]);
    }

    #[test]
    fn words_of_a_server_are_no_formula() {
        assert_eq!(quoted("=cmd"), "\"'=cmd\"");
        assert_eq!(quoted("a \"b\", c"), "\"a \"\"b\"\", c\"");
    }
}
