//! What is learned before the run: that the server answers, and what a word costs in tokens.

use super::ask::{Answer, ask, fetch_json};
use super::body::{Message, RequestFields};
use super::chunk::Usage;
use super::connection::Pool;
use super::words::Words;
use super::{BenchError, RequestFailure, Target};

/// How many tokens a text of our words becomes: `overhead + tokens_per_word × words`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Tokens that a prompt has before its text: the chat template.
    pub overhead: f64,
    /// Tokens of a word, on average over the list.
    pub tokens_per_word: f64,
}

impl Calibration {
    /// The line through two prompts.
    fn through(one: (usize, u64), other: (usize, u64)) -> Option<Self> {
        let words = other.0.checked_sub(one.0).filter(|words| *words > 0)?;
        let tokens = other.1.checked_sub(one.1).filter(|tokens| *tokens > 0)?;
        let tokens_per_word = tokens as f64 / words as f64;
        Some(Self {
            overhead: (one.1 as f64 - tokens_per_word * one.0 as f64).max(0.0),
            tokens_per_word,
        })
    }
}

/// Asks once with a few words, which any server can answer, and once with all of them.
///
/// # Errors
/// The reason why a run would fail too: nobody there, a refused token, a wrong model.
pub(super) async fn calibrate(
    target: &Target,
    pool: &Pool,
    fields: &RequestFields,
) -> Result<Calibration, BenchError> {
    let words = Words::new();
    let Some(few) = check(target, pool, fields).await? else {
        return Ok(Calibration::BLIND);
    };
    for count in [words.len(), words.len() / 4] {
        // The most words may exceed a small model's context.
        if let Ok(Some(many)) = measure(target, pool, fields, &words, count).await {
            let line = Calibration::through((FEW, few), (count, many));
            return Ok(line.unwrap_or(Calibration::BLIND));
        }
    }
    Ok(Calibration::BLIND)
}

/// Asks with a few words. The tokens that they were, if the server counts.
///
/// # Errors
/// The reason why a run would fail too.
pub(super) async fn check(
    target: &Target,
    pool: &Pool,
    fields: &RequestFields,
) -> Result<Option<u64>, BenchError> {
    measure(target, pool, fields, &Words::new(), FEW)
        .await
        .map_err(|failure| unusable(target, failure))
}

/// The first model that the server says it has.
///
/// # Errors
/// If it does not answer, or has none.
pub async fn first_model(target: &Target) -> Result<String, BenchError> {
    let path = target.uri.path();
    let base = ["chat/completions", "completions"]
        .iter()
        .find_map(|end| path.trim_end_matches('/').strip_suffix(end))
        .unwrap_or("/v1/");
    let no_model = || BenchError::NoModel {
        address: target.shown.clone(),
    };
    let models = format!("{base}models").parse().map_err(|_| no_model())?;
    let list = fetch_json(&target.at(models), &Pool::default())
        .await
        .map_err(|failure| unusable(target, failure))?;
    let model = list.pointer("/data/0/id").and_then(|id| id.as_str());
    model.map(str::to_owned).ok_or_else(no_model)
}

fn unusable(target: &Target, failure: RequestFailure) -> BenchError {
    BenchError::Unusable {
        origin: target.token_origin.clone(),
        address: target.shown.clone(),
        failure,
    }
}

impl Calibration {
    /// For servers that do not count tokens.
    const BLIND: Self = Self {
        overhead: 0.0,
        tokens_per_word: 1.0,
    };
}

/// The prompt tokens of the first `count` words; `None` if the server does not count.
async fn measure(
    target: &Target,
    pool: &Pool,
    fields: &RequestFields,
    words: &Words,
    count: usize,
) -> Result<Option<u64>, RequestFailure> {
    let body = fields.body(&[Message::user(words.sample(count))], 1);
    match ask(target, pool, body, false, || ()).await {
        Answer {
            failure: Some(failure),
            ..
        } => Err(failure),
        Answer { usage, .. } => Ok(usage.map(|Usage { prompt_tokens, .. }| prompt_tokens)),
    }
}

const FEW: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_prompts_give_the_overhead_and_the_cost_of_a_word() {
        let line = Calibration::through((4, 15), (104, 165)).unwrap();
        assert!((line.tokens_per_word - 1.5).abs() < 1e-12);
        assert!((line.overhead - 9.0).abs() < 1e-12);
        assert_eq!(Calibration::through((4, 15), (104, 15)), None);
        assert_eq!(Calibration::through((4, 15), (4, 20)), None);
    }
}
