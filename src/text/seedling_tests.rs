//! The committed model's files against what the reference libraries made of them.

use std::path::Path;

use super::*;

fn read(path: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models")
        .join(path);
    std::fs::read(&file).unwrap_or_else(|error| panic!("models/{path}: {error}"))
}

fn golden(name: &str) -> Vec<Value> {
    let cases: Vec<Value> =
        serde_json::from_slice(&read(&format!("goldens/seedling/{name}"))).unwrap();
    assert!(!cases.is_empty(), "{name} has no cases");
    cases
}

fn seedling() -> Arc<TextModel> {
    let template = String::from_utf8(read("seedling/chat_template.jinja")).unwrap();
    let files = TextFiles {
        tokenizer: &read("seedling/tokenizer.json"),
        tokenizer_config: Some(&read("seedling/tokenizer_config.json")),
        chat_template: Some(&template),
    };
    Arc::new(TextModel::new(&files).unwrap())
}

fn ids(json: &Value) -> Vec<TokenId> {
    serde_json::from_value(json.clone()).unwrap()
}

fn streamed(model: &Arc<TextModel>, ids: &[TokenId]) -> String {
    let mut detokenizer = model.detokenizer();
    let pieces: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    pieces + &detokenizer.finish()
}

#[test]
fn the_seedlings_ids_and_texts_are_those_of_the_reference() {
    let model = seedling();
    for case in golden("tokenizer_vectors.json") {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        assert_eq!(model.encode(text), expected, "{text:?}");
        assert_eq!(
            streamed(&model, &expected),
            case["decoded"].as_str().unwrap(),
            "{text:?}"
        );
        assert_eq!(
            model.decode(&expected),
            case["decoded"].as_str().unwrap(),
            "{text:?}"
        );
    }
}

#[test]
fn the_seedlings_chats_are_laid_out_as_the_reference_does() {
    let model = seedling();
    for case in golden("greedy.json") {
        let messages: Vec<RawMessage> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| RawMessage {
                role: message["role"].as_str().unwrap().to_owned(),
                content: Some(message["content"].as_str().unwrap().to_owned()),
                tool_calls: None,
                tool_call_id: None,
            })
            .collect();
        let prompt = model.chat_prompt(&normalise(&messages).unwrap()).unwrap();
        assert_eq!(prompt, ids(&case["prompt_ids"]), "{}", case["messages"]);
        assert_eq!(
            streamed(&model, &ids(&case["greedy_ids"])),
            case["text"].as_str().unwrap()
        );
    }
}
