//! System prompts that the operator has declared public, as the engine wants them: in tokens.

use std::sync::Arc;

use super::Failure;
use crate::engine::TokenId;
use crate::text::{PromptError, RawMessage, TextModel, normalise};

/// The tokens with which every prompt under each of `prompts` begins, in whole blocks of `block_size`: what the engine
/// shares. One that fills no block is left out with a warning.
///
/// # Errors
/// If the chat template refuses one of them.
pub(super) fn tokens(
    prompts: &[String],
    text: &TextModel,
    block_size: usize,
) -> Result<Vec<Arc<[TokenId]>>, Failure> {
    let mut prefixes = Vec::new();
    for (at, prompt) in prompts.iter().enumerate() {
        let number = at + 1;
        let mut prefix = beginning(prompt, text).map_err(|error| {
            Failure::new(format!(
                "the chat template refuses entry {number} of public_prefixes"
            ))
            .caused_by(&error)
        })?;
        let whole = prefix.len() / block_size * block_size;
        if whole == 0 {
            tracing::warn!(
                entry = number,
                tokens = prefix.len(),
                block_size,
                "an entry of public_prefixes fills no block of the KV cache: there is nothing to share"
            );
            continue;
        }
        prefix.truncate(whole);
        prefixes.push(prefix.into());
    }
    Ok(prefixes)
}

/// What the prompts of dissimilar talks under one system prompt have in common. That is right for any template,
/// wherever it puts the system prompt.
fn beginning(system: &str, text: &TextModel) -> Result<Vec<TokenId>, PromptError> {
    let message = |role: &str, content: &str| RawMessage {
        role: role.to_owned(),
        content: Some(content.to_owned()),
        tool_calls: None,
        tool_call_id: None,
    };
    let prompt = |user: &str| {
        let talk = [message("system", system), message("user", user)];
        text.chat_prompt(&normalise(&talk)?)
    };
    let mut common = prompt(FIRST_WORDS[0])?;
    for words in &FIRST_WORDS[1..] {
        let other = prompt(words)?;
        let same = common.iter().zip(&other).take_while(|(a, b)| a == b);
        let same = same.count();
        common.truncate(same);
    }
    Ok(common)
}

/// What callers begin with, of every kind: a token across the border of the two texts must not count as common.
const FIRST_WORDS: [&str; 6] = ["When", "the", "7", "(x)", "Été", "…"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelFiles, ModelSource};
    use crate::text::TextFiles;

    fn seedling(template: Option<&str>) -> TextModel {
        let files = ModelFiles::open(&ModelSource::Seedling).unwrap();
        TextModel::new(&TextFiles {
            tokenizer: &files.tokenizer,
            tokenizer_config: files.tokenizer_config.as_deref(),
            chat_template: template,
        })
        .unwrap()
    }

    fn prompt(text: &TextModel, system: &str, user: &str) -> Vec<TokenId> {
        let message = |role: &str, content: &str| RawMessage {
            role: role.to_owned(),
            content: Some(content.to_owned()),
            tool_calls: None,
            tool_call_id: None,
        };
        let talk = normalise(&[message("system", system), message("user", user)]).unwrap();
        text.chat_prompt(&talk).unwrap()
    }

    const SYSTEM: &str =
        "You are a helpful gardener. Answer in two sentences, and never mention the weather.";
    const AFTER: &str =
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}";

    #[test]
    fn every_prompt_under_a_public_system_prompt_begins_with_its_tokens() {
        for template in [None, Some(AFTER)] {
            let text = seedling(template);
            let prefixes = tokens(&[SYSTEM.to_owned()], &text, 4).unwrap();
            let [prefix] = &prefixes[..] else {
                panic!("{prefixes:?}")
            };
            assert!(
                prefix.len() >= 8 && prefix.len().is_multiple_of(4),
                "{prefix:?}"
            );
            for user in [
                "When do I sow carrots?",
                "What now",
                "  12 × 7",
                "\n\nhello",
                "ß",
            ] {
                assert!(prompt(&text, SYSTEM, user).starts_with(prefix), "{user}");
            }
            let other = prompt(&text, "You are a pirate.", "When do I sow carrots?");
            assert!(!other.starts_with(prefix));
        }
    }

    #[test]
    fn a_prefix_that_fills_no_block_is_left_out() {
        let text = seedling(None);
        let prompts = ["Hi.".to_owned(), SYSTEM.repeat(20)];
        assert_eq!(tokens(&prompts, &text, 128).unwrap().len(), 1);
    }
}
