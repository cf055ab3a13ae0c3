use proptest::prelude::*;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::*;
use crate::text::fixtures::{
    byte_level_json, chatml_json, id, metaspace_first_json, mixtral_json, model,
};

/// What each push and the end give.
fn pieces(model: &Arc<TextModel>, ids: &[TokenId]) -> Vec<String> {
    let mut detokenizer = model.detokenizer();
    let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
    pieces.push(detokenizer.finish());
    pieces
}

fn ids(file: &Value, tokens: &[&str]) -> Vec<TokenId> {
    tokens.iter().map(|token| id(file, token)).collect()
}

/// The library's own decoder, which wants all ids at once.
fn reference(file: &Value) -> Tokenizer {
    Tokenizer::from_bytes(serde_json::to_vec(file).unwrap()).unwrap()
}

fn metaspace_decoder_json(scheme: &str) -> Value {
    let mut file = metaspace_first_json();
    file["decoder"] = serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    file
}

#[test]
fn a_character_appears_when_its_last_byte_comes() {
    let file = mixtral_json();
    let ids = ids(
        &file,
        &["▁hello", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "!"],
    );
    assert_eq!(
        pieces(&model(&file, None), &ids),
        ["hello", "", "", "", "🙂", "!", ""]
    );
}

#[test]
fn only_the_first_space_of_an_answer_is_dropped() {
    let file = mixtral_json();
    let model = model(&file, None);
    assert_eq!(
        pieces(&model, &ids(&file, &["▁", "▁hello", "▁hello"])),
        ["", " hello", " hello", ""]
    );
    assert_eq!(
        pieces(&model, &ids(&file, &["hello", "▁hello"])),
        ["hello", " hello", ""]
    );
    assert_eq!(
        pieces(&model, &ids(&file, &["</s>", "▁▁", "a"])),
        ["", " ", "a", ""]
    );
}

#[test]
fn a_continued_prompt_keeps_its_space() {
    let file = mixtral_json();
    let mut detokenizer = model(&file, None).continuing_detokenizer();
    assert_eq!(detokenizer.push(id(&file, "▁hello")), " hello");
}

#[test]
fn broken_bytes_are_replaced_once_nothing_can_complete_them() {
    let file = mixtral_json();
    let model = model(&file, None);
    let cut_short = ids(&file, &["<0xF0>", "<0x9F>", "a"]);
    assert_eq!(
        pieces(&model, &cut_short),
        ["", "", "\u{FFFD}\u{FFFD}a", ""]
    );
    let at_the_end = ids(&file, &["a", "<0xE5>", "<0x8F>"]);
    assert_eq!(
        pieces(&model, &at_the_end),
        ["a", "", "", "\u{FFFD}\u{FFFD}"]
    );
    let impossible = ids(&file, &["<0xFF>", "<0xC3>", "<0xC3>", "<0xA9>"]);
    assert_eq!(
        pieces(&model, &impossible),
        ["\u{FFFD}", "", "\u{FFFD}", "é", ""]
    );
}

#[test]
fn special_tokens_have_no_text_and_do_not_part_a_character() {
    let file = mixtral_json();
    let ids = ids(&file, &["<s>", "<0xC3>", "<unk>", "<0xA9>", "</s>"]);
    assert_eq!(pieces(&model(&file, None), &ids), ["", "", "", "é", "", ""]);
    assert_eq!(reference(&file).decode(&ids, true).unwrap(), "é");
}

#[test]
fn byte_level_tokens_hold_back_parts_of_characters() {
    let file = byte_level_json();
    let ids = ids(&file, &["Ġa", "he", "ð", "Ł", "Ļ", "Ĥ", "Ġ"]);
    assert_eq!(
        pieces(&model(&file, None), &ids),
        [" a", "he", "", "", "", "🙂", " ", ""]
    );
}

#[test]
fn a_long_completion_keeps_no_more_than_one_character() {
    let file = mixtral_json();
    let ids = ids(
        &file,
        &[
            "▁hello", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "<0xE5>", "▁",
        ],
    );
    let model = model(&file, None);
    let mut detokenizer = model.detokenizer();
    let (mut most, mut text) = (0, 0);
    for id in ids.iter().cycle().take(70_000) {
        text += detokenizer.push(*id).len();
        most = most.max(detokenizer.bytes.pending.len());
    }
    // The work of a push is bounded by what is pending and its own token, so the whole is linear.
    assert_eq!(
        (most, text),
        (3, 10_000 * (" hello".len() + "🙂\u{FFFD} ".len()) - 1)
    );
    assert!(detokenizer.bytes.pending.capacity() <= 64);
}

/// Ids, with bytes of characters likely enough to meet.
fn any_ids(file: &Value) -> impl Strategy<Value = Vec<TokenId>> + use<> {
    let size = model(file, None).vocab_size() as TokenId;
    let bytes = file["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(token, _)| {
            [
                "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "<0xC3>", "<0x20>", "ð", "Ł", "Ļ", "Ĥ", "▁",
            ]
            .contains(&token.as_str())
        })
        .map(|(_, id)| id.as_u64().unwrap() as TokenId)
        .collect::<Vec<_>>();
    prop::collection::vec(prop_oneof![0..size + 2, prop::sample::select(bytes)], 0..24)
}

/// The obvious twin for byte fallback: all bytes first, characters after.
fn twin(file: &Value, ids: &[TokenId]) -> String {
    let tokenizer = reference(file);
    let mut bytes = Vec::new();
    for id in ids {
        match tokenizer.id_to_token(*id).filter(|_| *id > 2) {
            Some(token) if token.starts_with("<0x") && token.len() == 6 => {
                bytes.push(u8::from_str_radix(&token[3..5], 16).unwrap());
            }
            Some(token) => bytes.extend(token.replace('▁', " ").bytes()),
            None => {}
        }
    }
    let text: String = bytes
        .utf8_chunks()
        .map(|chunk| chunk.valid().to_owned() + &"\u{FFFD}".repeat(chunk.invalid().len()))
        .collect();
    text.strip_prefix(' ').unwrap_or(&text).to_owned()
}

proptest! {
    #[test]
    fn pushes_and_finish_give_what_decode_gives(ids in any_ids(&mixtral_json())) {
        let file = mixtral_json();
        let model = model(&file, None);
        let whole = model.decode(&ids);
        prop_assert_eq!(pieces(&model, &ids).concat(), &*whole);
        prop_assert_eq!(&whole, &twin(&file, &ids));
    }

    #[test]
    fn decode_agrees_with_the_library_unless_bytes_are_broken(ids in any_ids(&mixtral_json())) {
        let file = mixtral_json();
        let theirs = reference(&file).decode(&ids, true).unwrap();
        if !theirs.contains('\u{FFFD}') {
            prop_assert_eq!(model(&file, None).decode(&ids), theirs);
        }
    }

    #[test]
    fn byte_level_agrees_with_the_library_on_any_ids(ids in any_ids(&byte_level_json())) {
        let file = byte_level_json();
        let model = model(&file, None);
        let theirs = reference(&file).decode(&ids, true).unwrap();
        prop_assert_eq!(&pieces(&model, &ids).concat(), &theirs);
        prop_assert_eq!(model.decode(&ids), theirs);
    }

    #[test]
    fn metaspace_agrees_with_the_library_on_any_ids(ids in any_ids(&mixtral_json())) {
        for scheme in ["always", "first", "never"] {
            let file = metaspace_decoder_json(scheme);
            let theirs = reference(&file).decode(&ids, true).unwrap();
            prop_assert_eq!(pieces(&model(&file, None), &ids).concat(), theirs);
        }
    }

    #[test]
    fn text_comes_back_through_ids(text in "[a-z ▁é日本🙂\n<>/s]{0,40}") {
        for file in [mixtral_json(), chatml_json(mixtral_json()), byte_level_json()] {
            let model = model(&file, None);
            // SentencePiece writes a space and its own mark alike.
            let expected = if file["normalizer"].is_null() { text.clone() } else { text.replace('▁', " ") };
            prop_assert_eq!(pieces(&model, &model.encode(&text)).concat(), expected);
        }
    }
}
