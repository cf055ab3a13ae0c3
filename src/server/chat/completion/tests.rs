use super::*;
use crate::engine::EngineError;

/// Token `n` is the `n`th piece of text; what is left at the end is `rest`.
struct Pieces {
    pieces: &'static [&'static str],
    rest: &'static str,
}

impl Decoder for Pieces {
    fn push(&mut self, id: TokenId) -> String {
        self.pieces[id as usize].to_owned()
    }

    fn finish(self) -> String {
        self.rest.to_owned()
    }
}

fn answer(
    pieces: &'static [&'static str],
    rest: &'static str,
    stops: &[&str],
    n: usize,
) -> Answer<Pieces> {
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    Answer::new((0..n).map(|_| Pieces { pieces, rest }), &stops, 5)
}

fn token(index: u32, id: TokenId) -> Option<Event> {
    Some(Event::Token { index, id })
}

fn finished(index: u32, reason: FinishReason, completion_tokens: usize) -> Option<Event> {
    // The prompt is the first sequence's.
    let usage = Usage {
        prompt_tokens: if index == 0 { 5 } else { 0 },
        cached_tokens: if index == 0 { 2 } else { 0 },
        completion_tokens,
    };
    Some(Event::Finished {
        index,
        reason,
        usage,
    })
}

fn text(change: Change) -> String {
    match change {
        Change::Nothing => String::new(),
        Change::Text { text, .. } | Change::Finished { text, .. } => text,
        Change::Failed(error) => panic!("{error:?}"),
    }
}

#[test]
fn tokens_become_text_and_the_ending_token_counts() {
    let mut answer = answer(&["Hel", "lo"], "!", &[], 1);
    assert_eq!(text(answer.absorb(token(0, 0))), "Hel");
    assert_eq!(text(answer.absorb(token(0, 1))), "lo");
    assert!(!answer.is_over());
    let last = answer.absorb(finished(0, FinishReason::Stop, 3));
    assert!(
        matches!(
            last,
            Change::Finished {
                finish: Finish::Stop,
                early: false,
                ..
            }
        ),
        "{last:?}"
    );
    assert_eq!(text(last), "!");
    assert!(answer.is_over());
    assert_eq!(
        answer.usage(),
        Usage {
            prompt_tokens: 5,
            cached_tokens: 2,
            completion_tokens: 3
        }
    );
}

#[test]
fn a_stop_string_ends_the_text_before_it_and_counts_tokens_up_to_it() {
    let mut answer = answer(&["one E", "ND two", "three"], "rest", &["END"], 1);
    assert_eq!(text(answer.absorb(token(0, 0))), "one ");
    let found = answer.absorb(token(0, 1));
    assert!(
        matches!(
            found,
            Change::Finished {
                finish: Finish::Stop,
                early: true,
                ..
            }
        ),
        "{found:?}"
    );
    assert_eq!(text(found), "");
    assert!(
        !answer.is_over(),
        "the engine has not ended the sequence yet"
    );
    assert!(matches!(answer.absorb(token(0, 2)), Change::Nothing));
    assert!(matches!(
        answer.absorb(finished(0, FinishReason::Stop, 3)),
        Change::Nothing
    ));
    assert!(answer.is_over());
    assert_eq!(answer.usage().completion_tokens, 2);
}

#[test]
fn text_held_back_for_a_stop_string_is_released_at_the_end() {
    let mut answer = answer(&["a EN"], "", &["END"], 1);
    assert_eq!(text(answer.absorb(token(0, 0))), "a ");
    let last = answer.absorb(finished(0, FinishReason::Length, 1));
    assert!(
        matches!(
            last,
            Change::Finished {
                finish: Finish::Length,
                ..
            }
        ),
        "{last:?}"
    );
    assert_eq!(text(last), "EN");
}

#[test]
fn a_stop_string_that_the_rest_completes_is_why_it_ended() {
    let mut answer = answer(&["a EN"], "D", &["END"], 1);
    answer.absorb(token(0, 0));
    let last = answer.absorb(finished(0, FinishReason::Length, 1));
    assert!(
        matches!(
            last,
            Change::Finished {
                finish: Finish::Stop,
                early: false,
                ..
            }
        ),
        "{last:?}"
    );
    assert_eq!(text(last), "");
}

#[test]
fn completions_of_one_request_do_not_mix_and_the_prompt_counts_once() {
    let mut answer = answer(&["x", "y"], "", &[], 2);
    assert!(matches!(answer.absorb(token(1, 1)), Change::Text { index: 1, text } if text == "y"));
    assert!(matches!(answer.absorb(token(0, 0)), Change::Text { index: 0, text } if text == "x"));
    answer.absorb(finished(1, FinishReason::Length, 1));
    assert!(!answer.is_over());
    answer.absorb(finished(0, FinishReason::Stop, 2));
    assert!(answer.is_over());
    assert_eq!(
        answer.usage(),
        Usage {
            prompt_tokens: 5,
            cached_tokens: 2,
            completion_tokens: 3
        }
    );
}

#[test]
fn whatever_ends_too_early_is_a_503() {
    let failures = [
        (Some(Event::Failed(EngineError::Failed)), "engine_failed"),
        (
            Some(Event::Failed(EngineError::ShuttingDown)),
            "shutting_down",
        ),
        (finished(0, FinishReason::Cancelled, 1), "engine_failed"),
        (finished(0, FinishReason::Aborted, 1), "engine_failed"),
        (None, "engine_failed"),
    ];
    for (event, code) in failures {
        let change = answer(&["x"], "", &[], 1).absorb(event.clone());
        assert!(
            matches!(&change, Change::Failed(error) if error.status() == 503 && error.code() == code),
            "{event:?} became {change:?}"
        );
    }
}

#[test]
fn an_end_by_the_operators_rules_has_its_own_code() {
    let ended = |reason| {
        let answer = answer(&["x"], "", &[], 1).within(Some(Duration::from_secs(2)));
        let mut answer = answer;
        match answer.absorb(finished(0, reason, 1)) {
            Change::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let late = ended(FinishReason::DeadlineExceeded);
    assert_eq!(
        (late.status().as_u16(), late.code()),
        (504, "deadline_exceeded")
    );
    assert!(
        late.message().contains("within the 2 seconds"),
        "{}",
        late.message()
    );
    let revoked = ended(FinishReason::Revoked);
    assert_eq!(
        (revoked.status().as_u16(), revoked.code()),
        (403, "access_revoked")
    );
    let expired = ended(FinishReason::Expired);
    assert_eq!(
        (expired.status().as_u16(), expired.code()),
        (401, "token_expired")
    );
}

#[test]
fn an_event_of_an_unknown_completion_changes_nothing() {
    let mut answer = answer(&["x"], "", &[], 1);
    assert!(matches!(answer.absorb(token(7, 0)), Change::Nothing));
    assert!(matches!(
        answer.absorb(finished(7, FinishReason::Stop, 1)),
        Change::Nothing
    ));
    assert_eq!(answer.usage().completion_tokens, 0);
}

#[test]
fn an_answer_that_a_stop_string_has_ended_is_not_ended_again_by_the_clock() {
    for reason in [
        FinishReason::DeadlineExceeded,
        FinishReason::Revoked,
        FinishReason::Expired,
    ] {
        let mut answer = answer(&["one END"], "", &["END"], 1);
        assert_eq!(text(answer.absorb(token(0, 0))), "one ");
        let ended = answer.absorb(finished(0, reason, 1));
        assert!(matches!(ended, Change::Nothing), "{ended:?}");
        assert!(answer.is_over());
        assert_eq!(answer.usage().cached_tokens, 2);
    }
}
