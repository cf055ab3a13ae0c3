//! The JSON of a request.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Which of OpenAI's two ways to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `messages`.
    Chat,
    /// `prompt`.
    Completions,
}

impl Api {
    /// What the last words of a path say.
    pub fn of(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        if path.ends_with("chat/completions") {
            Some(Self::Chat)
        } else if path.ends_with("completions") {
            Some(Self::Completions)
        } else {
            None
        }
    }
}

/// What all requests of a run have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestFields {
    /// How to ask.
    pub api: Api,
    /// The model's name.
    pub model: String,
    /// Whether to write on after an end-of-text token, so that every answer has its full length.
    pub ignore_eos: bool,
    /// The server's default if `None`.
    pub temperature: Option<f64>,
    /// Further fields; they win over ours.
    pub more: Map<String, Value>,
}

/// A turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    role: &'static str,
    content: String,
}

impl Message {
    pub(super) fn user(content: String) -> Self {
        Self {
            role: "user",
            content,
        }
    }

    pub(super) fn assistant(content: String) -> Self {
        Self {
            role: "assistant",
            content,
        }
    }
}

impl RequestFields {
    /// The body of a streamed request for at most `max_tokens` tokens. Without chat, the last message is the prompt.
    pub(super) fn body(&self, messages: &[Message], max_tokens: u32) -> Bytes {
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(self.model));
        match self.api {
            Api::Chat => body.insert("messages".to_owned(), json!(messages)),
            Api::Completions => {
                let prompt = messages.last().map(|message| message.content.as_str());
                body.insert("prompt".to_owned(), json!(prompt))
            }
        };
        body.insert("max_tokens".to_owned(), json!(max_tokens));
        body.insert("stream".to_owned(), json!(true));
        body.insert(
            "stream_options".to_owned(),
            json!({ "include_usage": true }),
        );
        if self.ignore_eos {
            body.insert("ignore_eos".to_owned(), json!(true));
        }
        if let Some(temperature) = self.temperature {
            body.insert("temperature".to_owned(), json!(temperature));
        }
        body.extend(self.more.clone());
        Value::Object(body).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(api: Api) -> RequestFields {
        RequestFields {
            api,
            model: "m".to_owned(),
            ignore_eos: true,
            temperature: Some(0.0),
            more: Map::from_iter([("top_p".to_owned(), json!(0.5))]),
        }
    }

    #[test]
    fn a_chat_request_asks_for_a_stream_with_usage() {
        let messages = [
            Message::user("hi".to_owned()),
            Message::assistant("ho".to_owned()),
        ];
        let body = fields(Api::Chat).body(&messages, 7);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({
                "model": "m",
                "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
                "max_tokens": 7,
                "stream": true,
                "stream_options": {"include_usage": true},
                "ignore_eos": true,
                "temperature": 0.0,
                "top_p": 0.5,
            })
        );
    }

    #[test]
    fn a_completion_request_has_a_prompt() {
        let mut fields = fields(Api::Completions);
        fields.ignore_eos = false;
        fields.temperature = None;
        let body = fields.body(&[Message::user("hi".to_owned())], 7);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["prompt"], "hi");
        assert!(body.get("messages").is_none() && body.get("ignore_eos").is_none());
    }

    #[test]
    fn the_path_tells_how_to_ask() {
        assert_eq!(Api::of("/v1/chat/completions"), Some(Api::Chat));
        assert_eq!(Api::of("/openai/v1/completions/"), Some(Api::Completions));
        assert_eq!(Api::of("/v1/embeddings"), None);
    }
}
