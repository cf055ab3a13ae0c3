//! From a valid chat request and its prompt to what the engine runs: defaults, and what the context leaves.

use super::wire::{ChatRequest, WireSampling};
use crate::auth::Rights;
use crate::engine::{Request, SamplingParams, StopConditions, TokenId};
use crate::server::{ApiError, ModelCard, SamplingDefaults};

/// The engine's request. Without `max_tokens` the completion may take what the context leaves beside the prompt, and
/// the caller's rights allow.
///
/// # Errors
/// `context_length_exceeded` if the prompt leaves no room for a single token, or not for the `max_tokens` or
/// `min_tokens` that were asked for.
pub(super) fn engine_request(
    chat: ChatRequest,
    prompt: Vec<TokenId>,
    model: &ModelCard,
    rights: &Rights,
) -> Result<Request, ApiError> {
    let context = super::context(model, rights);
    let room = context.saturating_sub(prompt.len());
    let least = chat.max_tokens.unwrap_or(chat.min_tokens.max(1));
    if least > room {
        return Err(ApiError::context_length(context, prompt.len(), least));
    }
    let most = rights
        .max_tokens
        .map_or(room, |most| room.min(most as usize));
    Ok(Request {
        prompt: prompt.into(),
        n: chat.n,
        sampling: sampling(chat.sampling, model.sampling),
        until: StopConditions {
            max_tokens: chat.max_tokens.unwrap_or(most),
            min_tokens: chat.min_tokens,
            stop_token_ids: chat.stop_token_ids,
            ignore_eos: chat.ignore_eos,
        },
        cache_salt: chat.cache_salt,
    })
}

fn sampling(asked: WireSampling, model: SamplingDefaults) -> SamplingParams {
    let temperature = asked.temperature.or(model.temperature).unwrap_or(1.0);
    SamplingParams {
        // Dividing logits by less than this overflows; the likeliest token wins either way.
        temperature: if temperature < GREEDY_BELOW {
            0.0
        } else {
            temperature
        },
        // 0 asks for the smallest set there is, which is one token: any share above 0 reaches that.
        top_p: asked
            .top_p
            .or(model.top_p)
            .unwrap_or(1.0)
            .max(f32::MIN_POSITIVE),
        top_k: asked.top_k.unwrap_or(model.top_k),
        min_p: asked.min_p.or(model.min_p).unwrap_or(0.0),
        repetition_penalty: asked
            .repetition_penalty
            .or(model.repetition_penalty)
            .unwrap_or(1.0),
        frequency_penalty: asked.frequency_penalty,
        presence_penalty: asked.presence_penalty,
        logit_bias: asked.logit_bias,
        seed: asked.seed,
    }
}

const GREEDY_BELOW: f32 = 1e-5;

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> ModelCard {
        ModelCard {
            id: "m".to_owned(),
            created: 0,
            owned_by: "o".to_owned(),
            max_model_len: 10,
            vocab_size: 100,
            sampling: SamplingDefaults {
                temperature: Some(0.7),
                top_k: Some(50),
                ..SamplingDefaults::default()
            },
        }
    }

    fn built(chat: ChatRequest, prompt_tokens: usize) -> Result<Request, ApiError> {
        engine_request(chat, vec![1; prompt_tokens], &card(), &Rights::default())
    }

    #[test]
    fn without_max_tokens_the_rest_of_the_context_is_used() {
        assert_eq!(
            built(ChatRequest::default(), 4).unwrap().until.max_tokens,
            6
        );
    }

    #[test]
    fn without_max_tokens_the_callers_cap_counts_if_it_is_less() {
        let most = |max_tokens, max_context| {
            let rights = Rights {
                max_tokens,
                max_context,
                ..Rights::default()
            };
            let request = engine_request(ChatRequest::default(), vec![1; 4], &card(), &rights);
            request.unwrap().until.max_tokens
        };
        assert_eq!(most(Some(2), None), 2);
        assert_eq!(most(Some(7), None), 6);
        assert_eq!(most(None, Some(9)), 5);
        assert_eq!(most(None, Some(11)), 6);
    }

    #[test]
    fn max_tokens_that_the_context_cannot_hold_are_refused_not_cut() {
        let chat = |max_tokens| ChatRequest {
            max_tokens: Some(max_tokens),
            ..ChatRequest::default()
        };
        assert_eq!(built(chat(6), 4).unwrap().until.max_tokens, 6);
        let error = built(chat(7), 4).unwrap_err();
        assert_eq!(
            error.message(),
            "This model's maximum context length is 10 tokens. However, you requested 11 tokens (4 in the messages, 7 \
             in the completion). Please reduce the length of the messages or completion."
        );
    }

    #[test]
    fn min_tokens_that_the_context_cannot_hold_are_refused_not_cut() {
        let chat = |min_tokens| ChatRequest {
            min_tokens,
            ..ChatRequest::default()
        };
        assert_eq!(built(chat(6), 4).unwrap().until.min_tokens, 6);
        let error = built(chat(7), 4).unwrap_err();
        assert_eq!(error.code(), "context_length_exceeded");
        assert!(
            error.message().contains("you requested 11 tokens"),
            "{}",
            error.message()
        );
    }

    #[test]
    fn a_prompt_that_fills_the_context_is_refused_in_the_words_clients_look_for() {
        assert!(built(ChatRequest::default(), 9).is_ok());
        let error = built(
            ChatRequest {
                max_tokens: Some(5),
                ..ChatRequest::default()
            },
            10,
        )
        .unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.code()),
            (400, "context_length_exceeded")
        );
        assert!(
            error.message().starts_with(
                "This model's maximum context length is 10 tokens. However, you requested 15 tokens (10 in the messages"
            ),
            "{}",
            error.message()
        );
    }

    #[test]
    fn the_models_sampling_defaults_give_way_to_the_callers() {
        let default = built(ChatRequest::default(), 1).unwrap().sampling;
        assert_eq!(
            (default.temperature, default.top_k, default.top_p),
            (0.7, Some(50), 1.0)
        );
        let asked = WireSampling {
            temperature: Some(1.5),
            top_k: Some(None),
            ..WireSampling::default()
        };
        let asked = built(
            ChatRequest {
                sampling: asked,
                ..ChatRequest::default()
            },
            1,
        )
        .unwrap()
        .sampling;
        assert_eq!((asked.temperature, asked.top_k), (1.5, None));
    }

    #[test]
    fn the_extremes_of_the_wire_stay_in_the_engines_ranges() {
        let asked = WireSampling {
            temperature: Some(1e-9),
            top_p: Some(0.0),
            ..WireSampling::default()
        };
        let sampling = built(
            ChatRequest {
                sampling: asked,
                ..ChatRequest::default()
            },
            1,
        )
        .unwrap()
        .sampling;
        assert_eq!(sampling.temperature, 0.0);
        assert!(sampling.top_p > 0.0);
    }
}
