//! Text → token ids, such that a caller's text never becomes a control token.
//!
//! Three doors lead from text to a control token, and all are shut when the file is read: the tokenizer's search for
//! added tokens, a merge whose product happens to be one (converted SentencePiece files have `</` + `s>`), and added
//! tokens that the file forgets to call special although the chat template relies on them.

use std::collections::HashSet;

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

use super::TextError;
use crate::engine::TokenId;

/// Text → token ids, such that a caller's text never becomes a control token.
#[derive(Debug)]
pub(super) struct Vocabulary {
    tokenizer: Tokenizer,
    /// For text that does not stand at the beginning, if the tokenizer treats it otherwise there.
    interior: Option<Tokenizer>,
    /// Longest first, so that the first that fits is the longest.
    control: Vec<ControlToken>,
    control_ids: HashSet<TokenId>,
    unknown: Option<TokenId>,
    size: usize,
    joins_space: bool,
    /// Every byte of a text ends up in some token; without it, a run of unknown text may become one token.
    keeps_every_byte: bool,
}

/// A token that steers the model: not part of anybody's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlToken {
    pub(super) id: TokenId,
    pub(super) content: String,
    /// Swallows the white space before it.
    pub(super) lstrip: bool,
    /// Swallows the white space after it.
    pub(super) rstrip: bool,
}

impl Vocabulary {
    /// Reads `file`, a parsed `tokenizer.json`. An added token is a control token if it is special in the file, or if
    /// `is_control` says so of its content.
    pub(super) fn new(
        mut file: Value,
        is_control: impl Fn(&str) -> bool,
    ) -> Result<Self, TextError> {
        let contents = take_control_tokens(&mut file, is_control);
        check_model(&mut file, &contents)?;
        // Limits in the file are for training batches; the server has its own.
        file["truncation"] = Value::Null;
        file["padding"] = Value::Null;
        let keeps_every_byte = file["model"]["byte_fallback"] == true
            || file["model"]["unk_token"].is_null()
            || file["model"]["fuse_unk"] == false;
        let tokenizer = load(&file)?;
        let interior = if never_prepend(&mut file["pre_tokenizer"]) {
            Some(load(&file)?)
        } else {
            None
        };

        let mut control: Vec<ControlToken> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| ControlToken {
                id,
                content: token.content,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
            })
            .collect();
        control.sort_by(|a, b| b.content.len().cmp(&a.content.len()).then(a.id.cmp(&b.id)));
        let largest = tokenizer.get_vocab(true).into_values().max();
        let mut vocabulary = Self {
            control_ids: control.iter().map(|token| token.id).collect(),
            unknown: file["model"]["unk_token"]
                .as_str()
                .and_then(|token| tokenizer.token_to_id(token)),
            size: largest.map_or(0, |id| id as usize + 1),
            joins_space: false,
            keeps_every_byte,
            tokenizer,
            interior,
            control,
        };
        vocabulary.joins_space = vocabulary.drops_leading_space();
        Ok(vocabulary)
    }

    /// Whether no part of a text is ever dropped or folded into one unknown token.
    pub(super) fn keeps_every_byte(&self) -> bool {
        self.keeps_every_byte
    }

    /// Ids of `text` at the beginning of a prompt; `text` is only text, whatever it looks like.
    pub(super) fn encode(&self, text: &str) -> Vec<TokenId> {
        self.encode_with(&self.tokenizer, text)
    }

    /// Ids of `text` after a control token.
    pub(super) fn encode_interior(&self, text: &str) -> Vec<TokenId> {
        self.encode_with(self.interior.as_ref().unwrap_or(&self.tokenizer), text)
    }

    /// Ids of `text` with a word boundary before it, as SentencePiece with its dummy prefix gives: the `▁` is there
    /// whether the file has the legacy `Prepend` normaliser, another way of adding it, or none.
    pub(super) fn encode_segment(&self, text: &str) -> Vec<TokenId> {
        if self.joins_space {
            self.encode(&format!(" {text}"))
        } else {
            self.encode(text)
        }
    }

    /// The control token that `text` begins with; the longest if several fit.
    pub(super) fn control_at(&self, text: &str) -> Option<&ControlToken> {
        self.control
            .iter()
            .find(|token| text.starts_with(&token.content))
    }

    pub(super) fn is_control(&self, id: TokenId) -> bool {
        self.control_ids.contains(&id)
    }

    pub(super) fn id(&self, token: &str) -> Option<TokenId> {
        self.tokenizer.token_to_id(token)
    }

    /// The token's name in the vocabulary, such as `▁the` or `</s>`.
    pub(super) fn token(&self, id: TokenId) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// One more than the largest id.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn encode_with(&self, tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
        let encoding = tokenizer.encode_fast(text, false).expect(
            "BPE fails only without its unknown token, which is checked on reading. This is a bug.",
        );
        let mut ids = encoding.get_ids().to_vec();
        // Reading the file has made this impossible for models with merges; whole-word lookups (`ignore_merges`
        // without a pre-tokenizer) could still find one. Such a word is left out rather than obeyed.
        ids.retain(|id| Some(*id) == self.unknown || !self.is_control(*id));
        ids
    }

    /// Whether this is a SentencePiece-like tokenizer that does not put a `▁` of its own before a leading space.
    fn drops_leading_space(&self) -> bool {
        let tokens: String = self
            .encode(" a")
            .into_iter()
            .filter_map(|id| self.tokenizer.id_to_token(id))
            .collect();
        tokens.starts_with('▁') && !tokens.starts_with("▁▁")
    }
}

/// Marks the control tokens of `file` special, so that the tokenizer passes over them in text, and not normalised,
/// so that their content stays as written. Returns their contents.
fn take_control_tokens(file: &mut Value, is_control: impl Fn(&str) -> bool) -> HashSet<String> {
    let mut contents = HashSet::new();
    for token in file["added_tokens"].as_array_mut().into_iter().flatten() {
        let Some(content) = token["content"].as_str().map(str::to_owned) else {
            continue;
        };
        if token["special"] == true || is_control(&content) {
            token["special"] = true.into();
            token["normalized"] = false.into();
            contents.insert(content);
        }
    }
    contents
}

/// Refuses what would make encoding fail later, and drops the merges that make a control token out of text.
fn check_model(file: &mut Value, control: &HashSet<String>) -> Result<(), TextError> {
    let model = &mut file["model"];
    // Old files leave the type out.
    if let Some(kind) = model["type"].as_str()
        && kind != "BPE"
    {
        return Err(TextError(format!(
            "tokenizer.json: the model is {kind}, only BPE is supported"
        )));
    }
    let Some(merges) = model["merges"].as_array_mut() else {
        return Err(TextError(
            "tokenizer.json: the model has no merges; only BPE is supported".into(),
        ));
    };
    merges.retain(|merge| {
        let product = match merge {
            Value::String(pair) => pair.replacen(' ', "", 1),
            pair => format!(
                "{}{}",
                pair[0].as_str().unwrap_or_default(),
                pair[1].as_str().unwrap_or_default()
            ),
        };
        !control.contains(&product)
    });
    if let Some(unknown) = model["unk_token"].as_str()
        && model["vocab"].get(unknown).is_none()
    {
        return Err(TextError(format!(
            "tokenizer.json: unk_token {unknown:?} is not in the vocabulary"
        )));
    }
    Ok(())
}

fn load(file: &Value) -> Result<Tokenizer, TextError> {
    let refused = |error: String| TextError(format!("tokenizer.json: {error}"));
    let bytes = serde_json::to_vec(file).map_err(|error| refused(error.to_string()))?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| refused(error.to_string()))?;
    tokenizer.set_encode_special_tokens(true);
    // The crate's cache keeps up to ten thousand pieces of callers' text on each thread: hundreds of megabytes where
    // pieces are long, and time that tells whether somebody else sent the same.
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model() {
        let mut bpe = bpe.clone();
        bpe.resize_cache(0);
        tokenizer.with_model(bpe);
    }
    Ok(tokenizer)
}

/// Turns `prepend_scheme: first` into `never`; true if there was one. Text after a control token gets no `▁` there,
/// but encoded by itself each text would be the first.
fn never_prepend(pre_tokenizer: &mut Value) -> bool {
    if pre_tokenizer["prepend_scheme"] == "first" {
        pre_tokenizer["prepend_scheme"] = "never".into();
        return true;
    }
    let mut found = false;
    if let Some(steps) = pre_tokenizer
        .get_mut("pretokenizers")
        .and_then(Value::as_array_mut)
    {
        for step in steps {
            found |= never_prepend(step);
        }
    }
    found
}
