//! Tiny tokenizers in the shapes that checkpoints have, made on the spot.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Role, TextFiles, TextModel, Turn};
use crate::engine::TokenId;

/// Mixtral's shape: byte fallback, `Prepend` + `Replace`, no pre-tokenizer. As in converted SentencePiece files, the
/// merges happen to spell `</s>`, and `[INST]` is four ordinary tokens or fewer.
pub(super) fn mixtral_json() -> Value {
    let mut vocab = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    vocab.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    vocab.push("▁".to_owned());
    vocab.extend((b'!'..=b'~').map(|byte| char::from(byte).to_string()));
    vocab.extend(["é", "日", "本", "▁▁"].map(str::to_owned));
    let merges = [
        ("I", "N"),
        ("S", "T"),
        ("IN", "ST"),
        ("▁", "["),
        ("▁[", "INST"),
        ("<", "/"),
        ("s", ">"),
        ("</", "s>"),
        ("<", "s>"),
        ("h", "e"),
        ("l", "l"),
        ("he", "ll"),
        ("hell", "o"),
        ("▁", "hello"),
        ("▁", "a"),
        ("日", "本"),
    ];
    vocab.extend(
        merges
            .map(|(left, right)| format!("{left}{right}"))
            .into_iter()
            .filter(|token| !["<s>", "</s>"].contains(&token.as_str())),
    );
    let vocab: serde_json::Map<_, _> = vocab
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, Value::from(id)))
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab,
            "merges": merges.map(|(left, right)| json!([left, right])),
        },
    })
}

/// [`mixtral_json`] as newer files have it: no `Prepend`.
pub(super) fn without_prepend_json() -> Value {
    let mut file = mixtral_json();
    file["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    file
}

/// [`mixtral_json`] as files converted with `legacy: false` have it: `▁` only at the very beginning.
pub(super) fn metaspace_first_json() -> Value {
    let mut file = mixtral_json();
    file["normalizer"] = Value::Null;
    file["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    file
}

/// [`mixtral_json`] with the two tokens of a ChatML finetune, one of which the file forgets to call special.
pub(super) fn chatml_json(mut file: Value) -> Value {
    let size = file["model"]["vocab"].as_object().unwrap().len();
    let tokens = file["added_tokens"].as_array_mut().unwrap();
    tokens.push(added(size, "<|im_end|>", true));
    tokens.push(added(size + 1, "<|im_start|>", false));
    file
}

/// GPT-2's shape.
pub(super) fn byte_level_json() -> Value {
    let mut vocab = vec!["<s>".to_owned(), "</s>".to_owned()];
    vocab.extend((b'!'..=b'~').map(|byte| char::from(byte).to_string()));
    vocab.extend(
        ('¡'..='¬')
            .chain('®'..='ÿ')
            .chain('Ā'..='Ń')
            .map(|c| c.to_string()),
    );
    vocab.extend(["Ġa", "he"].map(str::to_owned));
    let vocab: serde_json::Map<_, _> = vocab
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, Value::from(id)))
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": [added(0, "<s>", true), added(1, "</s>", true)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["Ġ a", "h e"]},
    })
}

/// A model of `file` and, if given, a template.
pub(super) fn model(file: &Value, chat_template: Option<&str>) -> Arc<TextModel> {
    let tokenizer = serde_json::to_vec(file).unwrap();
    Arc::new(
        TextModel::new(&TextFiles {
            tokenizer: &tokenizer,
            tokenizer_config: None,
            chat_template,
        })
        .unwrap(),
    )
}

/// A token's id, which must exist.
pub(super) fn id(file: &Value, token: &str) -> TokenId {
    let known = file["model"]["vocab"][token].as_u64().or_else(|| {
        file["added_tokens"]
            .as_array()?
            .iter()
            .find(|added| added["content"] == token)?["id"]
            .as_u64()
    });
    known.unwrap_or_else(|| panic!("no token {token}")) as TokenId
}

/// The names of `ids`, a space between them.
pub(super) fn names(model: &TextModel, ids: &[TokenId]) -> String {
    ids.iter()
        .map(|id| model.vocabulary.token(*id).unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A talk that alternates, the user first.
pub(super) fn talk(texts: &[&str]) -> Vec<Turn> {
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    roles
        .zip(texts)
        .map(|(role, text)| Turn {
            role,
            text: (*text).to_owned(),
        })
        .collect()
}

/// `turns` after a system turn.
pub(super) fn with_system(text: &str, mut turns: Vec<Turn>) -> Vec<Turn> {
    turns.insert(
        0,
        Turn {
            role: Role::System,
            text: text.to_owned(),
        },
    );
    turns
}

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special,
    })
}
