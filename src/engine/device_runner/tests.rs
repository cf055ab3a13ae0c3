//! The engine's steps on the emulated device: what it says is what the engine says on the CPU.

use std::time::Duration;

use super::*;
use crate::engine::fake::{arrival, config};
use crate::engine::scheduler::Scheduler;
use crate::engine::{ModelRunner, PagedMixtral, Request, SamplingParams, StopConditions};
use crate::model::{LoadOptions, ModelSource};
use crate::ops::test_device::TestDevice;
use crate::ops::testing::root;

const OPTIONS: LoadOptions = LoadOptions {
    max_num_batched_tokens: 64,
    max_logit_rows: 4,
};

fn seedling() -> ModelSource {
    ModelSource::Folder(root().join("models/seedling"))
}

fn on_device() -> DeviceRunner<TestDevice> {
    let backend = |config: &_, limits| OnDevice::new(TestDevice::late(), config, limits, true);
    let model = Mixtral::load_on(&seedling(), OPTIONS, backend).unwrap();
    DeviceRunner::new(model, 12, 16, 2048).unwrap()
}

fn on_cpu() -> ModelRunner<PagedMixtral> {
    let model = Mixtral::load(&seedling(), OPTIONS).unwrap();
    ModelRunner::new(PagedMixtral::new(model, 12, 16, 2048).unwrap())
}

/// What each request is answered, all of them together. `ahead`: each step is begun while the one before runs.
fn answers(runner: &mut impl Executor, requests: &[Request], ahead: bool) -> Vec<Vec<TokenId>> {
    let mut scheduler = Scheduler::new(runner.capacity(), &config(64, 4), [].into());
    for (number, request) in requests.iter().enumerate() {
        scheduler.add(arrival(number as u64, request.clone(), "somebody"));
    }
    let mut said = vec![Vec::new(); requests.len()];
    let mut running = StepPlan::default();
    let mut land = |runner: &mut _, scheduler: &mut Scheduler, running: &mut StepPlan| {
        if !running.is_empty() {
            let sampled = Executor::finish(runner).unwrap();
            let mut outcomes = Vec::new();
            scheduler.commit(running, &sampled, &mut outcomes);
            for outcome in outcomes {
                said[outcome.id.request as usize].push(outcome.token);
            }
            running.clear();
        }
    };
    while !scheduler.is_idle() {
        let mut plan = StepPlan::default();
        scheduler.plan(Duration::ZERO, &mut plan);
        if !plan.is_empty() {
            runner.start(&plan, scheduler.sequences()).unwrap();
        }
        land(runner, &mut scheduler, &mut running);
        scheduler.begin(&plan);
        running = plan;
        if !ahead {
            land(runner, &mut scheduler, &mut running);
        }
    }
    said
}

/// A step of a prompt that is not at its end chooses nothing, though it be the first of all.
#[test]
fn a_prompt_in_chunks_is_answered_as_in_one() {
    let mut long = request(SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    });
    let question = long.prompt.clone();
    while long.prompt.len() <= 64 {
        long.prompt = [&long.prompt[..], &question[..]].concat().into();
    }
    let requests = [long];
    let exact = answers(&mut on_cpu(), &requests, false);
    assert_eq!(answers(&mut on_device(), &requests, true), exact);
}

fn request(sampling: SamplingParams) -> Request {
    let golden = root().join("models/goldens/seedling/golden.safetensors");
    let golden = candle_core::safetensors::load(golden, &candle_core::Device::Cpu).unwrap();
    let prompt: Vec<i64> = golden["prompt_0.input_ids"].to_vec1().unwrap();
    Request {
        prompt: prompt.into_iter().map(|id| id as TokenId).collect(),
        n: 1,
        sampling,
        until: StopConditions {
            max_tokens: 8,
            min_tokens: 6,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        },
        cache_salt: None,
    }
}

#[test]
fn tokens_chosen_on_the_device_are_those_of_the_cpu_and_the_same_alone_and_together() {
    let greedy = SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    };
    let steered = SamplingParams {
        frequency_penalty: 1.5,
        presence_penalty: 1.0,
        repetition_penalty: 1.2,
        // The second token of the greedy answer.
        logit_bias: vec![(200, 3.0), (376, f32::NEG_INFINITY)],
        ..greedy.clone()
    };
    let drawn = SamplingParams {
        temperature: 6.0,
        seed: Some(7),
        ..SamplingParams::default()
    };
    // The token at which it stops would be chosen as soon as it may be.
    let mut stopped = request(greedy.clone());
    let answer = answers(&mut on_cpu(), std::slice::from_ref(&stopped), false).remove(0);
    assert!(!answer[..4].contains(&answer[4]));
    stopped.until.stop_token_ids = vec![answer[4]];
    stopped.until.min_tokens = 4;
    let requests = [request(greedy), request(steered), stopped, request(drawn)];
    let mut device = on_device();
    let together = answers(&mut device, &requests, true);
    let exact = answers(&mut on_cpu(), &requests[..3], false);
    assert_eq!(together[..3], exact);
    assert_ne!(together[0], together[1], "the penalties did something");
    assert_eq!(together[2], answer[..5]);
    assert_ne!(together[0], together[3], "the draw did something");
    // The prompts go through the same kernel in one chunk; single tokens share their steps with others or do not.
    let alone = answers(&mut device, &requests[3..], true);
    assert_eq!(together[3], alone[0]);
    let one_at_a_time = answers(&mut device, &requests, false);
    assert_eq!(one_at_a_time, together);
}
