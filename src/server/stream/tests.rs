use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::engine::{EngineError, FinishReason, TokenId, Usage};

const PLENTY: Duration = Duration::from_secs(3600);

/// Events as a test sends them, and a note of what was finished early.
struct Script {
    events: mpsc::UnboundedReceiver<Event>,
    finished: Arc<Mutex<Vec<u32>>>,
}

impl Events for Script {
    async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    fn finish(&self, index: u32) {
        self.finished.lock().unwrap().push(index);
    }
}

/// Token `n` is the `n`th of these.
struct Words;

impl Decoder for Words {
    fn push(&mut self, id: TokenId) -> String {
        ["Hello", ", ", "", "STOP"][id as usize].to_owned()
    }

    fn finish(self) -> String {
        String::new()
    }
}

struct Talk {
    send: mpsc::UnboundedSender<Event>,
    finished: Arc<Mutex<Vec<u32>>>,
    chunks: Chunks<Script, Words>,
}

fn talk(n: usize, options: StreamOptions) -> Talk {
    let (send, events) = mpsc::unbounded_channel();
    let finished = Arc::<Mutex<Vec<u32>>>::default();
    let script = Script {
        events,
        finished: finished.clone(),
    };
    let answer = Answer::new((0..n).map(|_| Words), &["STOP".to_owned()], 3);
    let envelope = Envelope {
        id: "chatcmpl-1".to_owned(),
        created: 9,
        model: "m".to_owned(),
    };
    Talk {
        send,
        finished,
        chunks: Chunks::new(script, answer, envelope, options, Record::for_tests(n)),
    }
}

fn token(index: u32, id: TokenId) -> Event {
    Event::Token { index, id }
}

fn end(index: u32, completion_tokens: usize) -> Event {
    let usage = Usage {
        prompt_tokens: 3,
        cached_tokens: 0,
        completion_tokens,
    };
    Event::Finished {
        index,
        reason: FinishReason::Length,
        usage,
    }
}

/// Plays `events` to the end and returns the frames: JSON, or text where it is not.
async fn played(
    n: usize,
    options: StreamOptions,
    events: impl IntoIterator<Item = Event>,
) -> Vec<Value> {
    let Talk { send, chunks, .. } = talk(n, options);
    events
        .into_iter()
        .for_each(|event| send.send(event).unwrap());
    drop(send);
    let response = chunks.into_response(PLENTY).await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    frames(response).await
}

async fn frames(response: Response) -> Vec<Value> {
    let chunks: Vec<_> = response
        .into_body()
        .into_data_stream()
        .map(Result::unwrap)
        .collect()
        .await;
    let text = String::from_utf8(chunks.concat()).unwrap();
    let frames = text.split_inclusive("\n\n");
    frames.map(|frame| value(frame.as_bytes())).collect()
}

fn value(frame: &[u8]) -> Value {
    let text = std::str::from_utf8(frame).unwrap();
    let Some(data) = text.strip_prefix("data: ") else {
        return json!(text);
    };
    let data = data.strip_suffix("\n\n").unwrap();
    serde_json::from_str(data).unwrap_or(json!(data))
}

fn chunk(choices: Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 9, "model": "m", "choices": choices})
}

fn choice(index: u32, delta: Value, finish: Option<&str>) -> Value {
    json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish})
}

#[tokio::test]
async fn the_role_comes_with_the_first_text_and_done_comes_last() {
    let frames = played(
        1,
        StreamOptions::default(),
        [token(0, 0), token(0, 2), token(0, 1), end(0, 3)],
    )
    .await;
    assert_eq!(
        frames,
        [
            chunk(json!([choice(
                0,
                json!({"role": "assistant", "content": "Hello"}),
                None
            )])),
            chunk(json!([choice(0, json!({"content": ", "}), None)])),
            chunk(json!([choice(0, json!({}), Some("length"))])),
            json!("[DONE]"),
        ]
    );
}

#[tokio::test]
async fn an_empty_completion_still_says_who_speaks() {
    let frames = played(1, StreamOptions::default(), [end(0, 1)]).await;
    assert_eq!(
        frames[0],
        chunk(json!([choice(
            0,
            json!({"role": "assistant", "content": ""}),
            None
        )]))
    );
    assert_eq!(
        frames[1],
        chunk(json!([choice(0, json!({}), Some("length"))]))
    );
    assert_eq!(frames.len(), 3);
}

#[tokio::test]
async fn usage_comes_once_without_choices_and_is_null_before() {
    let options = StreamOptions {
        include_usage: true,
        continuous_usage_stats: false,
    };
    let frames = played(1, options, [token(0, 0), end(0, 2)]).await;
    assert_eq!(frames.len(), 4);
    assert!(
        frames[..2]
            .iter()
            .all(|frame| frame.as_object().unwrap()["usage"].is_null()),
        "{frames:?}"
    );
    assert_eq!(frames[2]["choices"], json!([]));
    let usage = json!({
        "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}
    });
    assert_eq!(frames[2]["usage"], usage);
    assert_eq!(frames[3], "[DONE]");
}

#[tokio::test]
async fn continuous_usage_counts_on_every_chunk() {
    let options = StreamOptions {
        include_usage: true,
        continuous_usage_stats: true,
    };
    let frames = played(1, options, [token(0, 0), token(0, 1), end(0, 3)]).await;
    let counts: Vec<_> = frames[..4]
        .iter()
        .map(|frame| frame["usage"]["completion_tokens"].as_u64())
        .collect();
    assert_eq!(counts, [Some(1), Some(2), Some(3), Some(3)]);
}

#[tokio::test]
async fn each_completion_has_its_own_role_and_end() {
    let events = [token(1, 0), token(0, 1), end(1, 1), token(0, 0), end(0, 2)];
    let frames = played(2, StreamOptions::default(), events).await;
    let seen: Vec<_> = frames[..5]
        .iter()
        .map(|frame| &frame["choices"][0])
        .map(|choice| {
            (
                choice["index"].as_u64().unwrap(),
                choice["delta"]["role"].is_string(),
                choice["finish_reason"].is_string(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, true, false),
            (0, true, false),
            (1, false, true),
            (0, false, false),
            (0, false, true)
        ]
    );
    assert_eq!(frames[5], "[DONE]");
}

#[tokio::test]
async fn a_stop_string_ends_the_sequence_in_the_engine_too() {
    let Talk {
        send,
        finished,
        chunks,
    } = talk(1, StreamOptions::default());
    for event in [token(0, 0), token(0, 3), token(0, 0), end(0, 3)] {
        send.send(event).unwrap();
    }
    let frames = frames(chunks.into_response(PLENTY).await.unwrap()).await;
    assert_eq!(
        frames[1],
        chunk(json!([choice(0, json!({}), Some("stop"))]))
    );
    assert_eq!(frames[2], "[DONE]");
    assert_eq!(*finished.lock().unwrap(), [0]);
}

#[tokio::test]
async fn a_failure_before_the_first_event_keeps_its_status() {
    let Talk { send, chunks, .. } = talk(1, StreamOptions::default());
    send.send(Event::Failed(EngineError::Failed)).unwrap();
    let error = chunks.into_response(PLENTY).await.unwrap_err();
    assert_eq!(
        (error.status().as_u16(), error.code()),
        (503, "engine_failed")
    );
}

#[tokio::test]
async fn a_later_failure_is_an_error_event_and_no_done() {
    let frames = played(
        1,
        StreamOptions::default(),
        [token(0, 0), Event::Failed(EngineError::ShuttingDown)],
    )
    .await;
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1]["error"]["code"], "shutting_down");
    assert_eq!(frames[1].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let Talk {
        send, mut chunks, ..
    } = talk(1, StreamOptions::default());
    let short = Duration::from_millis(1);
    assert_eq!(chunks.next_frame(short).await.unwrap(), PING);
    assert_eq!(chunks.next_frame(short).await.unwrap(), PING);
    send.send(token(0, 0)).unwrap();
    assert_eq!(
        value(&chunks.next_frame(PLENTY).await.unwrap())["choices"][0]["delta"]["content"],
        "Hello"
    );
}

#[tokio::test]
async fn a_long_queue_does_not_hold_the_headers_back() {
    let Talk { send, chunks, .. } = talk(1, StreamOptions::default());
    let response = chunks
        .into_response(Duration::from_millis(1))
        .await
        .unwrap();
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), PING);
    assert!(!send.is_closed());
    drop(body);
    assert!(
        send.is_closed(),
        "dropping the response must drop the engine's events"
    );
}
