use super::*;
use crate::engine::Stats;

fn rendered(stats: Stats) -> String {
    let metrics = Metrics::with_stats("m", 64, move || engine_families(&stats, 64));
    metrics.answered("/livez", "GET", 200);
    metrics.denied("invalid_token");
    metrics.first_token(Duration::from_millis(30));
    metrics.refused(&SubmitError::OverShare {
        limit: 1,
        retry_after: Duration::ZERO,
    });
    let used = Usage {
        prompt_tokens: 30,
        cached_tokens: 16,
        completion_tokens: 12,
    };
    metrics.request(used, 2, 6);
    metrics.render()
}

#[test]
fn the_engines_snapshot_appears_under_vllms_names() {
    let text = rendered(Stats {
        running: 2,
        waiting: 3,
        kv_blocks_used: 5,
        kv_blocks: 20,
        block_size: 16,
        preemptions_total: 7,
        prompt_tokens_total: 11,
        generation_tokens_total: 13,
        prefix_queries_total: 40,
        prefix_hits_total: 32,
        prefix_evictions_total: 6,
        waiting_tokens: 900,
        subjects: 2,
        finished_total: [1, 2, 3, 4, 5, 6, 7, 8],
        ..Stats::default()
    });
    let labels = r#"engine="0",model_name="m""#;
    for line in [
            format!("vllm:num_requests_running{{{labels}}} 2"),
            format!("vllm:num_requests_waiting{{{labels}}} 3"),
            format!("vllm:kv_cache_usage_perc{{{labels}}} 0.25"),
            format!("vllm:num_preemptions_total{{{labels}}} 7"),
            format!("vllm:prompt_tokens_total{{{labels}}} 11"),
            format!("vllm:generation_tokens_total{{{labels}}} 13"),
            r#"vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 29"#.to_owned(),
            r#"mixgate_sequences_finished_total{engine="0",model_name="m",reason="deadline_exceeded"} 5"#.to_owned(),
            r#"mixgate_sequences_finished_total{engine="0",model_name="m",reason="revoked"} 6"#.to_owned(),
            r#"mixgate_sequences_finished_total{engine="0",model_name="m",reason="budget_spent"} 7"#.to_owned(),
            r#"mixgate_sequences_finished_total{engine="0",model_name="m",reason="expired"} 8"#.to_owned(),
            format!("vllm:prefix_cache_queries_total{{{labels}}} 40"),
            format!("vllm:prefix_cache_hits_total{{{labels}}} 32"),
            format!("vllm:prompt_tokens_cached_total{{{labels}}} 32"),
            format!("mixgate_prefix_cache_evictions_total{{{labels}}} 6"),
            format!("mixgate_waiting_tokens{{{labels}}} 900"),
            format!("mixgate_active_subjects{{{labels}}} 2"),
            r#"mixgate_refused_total{reason="over_share"} 1"#.to_owned(),
            r#"mixgate_refused_total{reason="queue_full"} 0"#.to_owned(),
            format!("vllm:request_prompt_tokens_sum{{{labels}}} 30"),
            format!("vllm:request_generation_tokens_sum{{{labels}}} 12"),
            format!("vllm:request_params_n_sum{{{labels}}} 2"),
            format!("vllm:request_params_max_tokens_sum{{{labels}}} 6"),
            r#"vllm:request_success_total{engine="0",finished_reason="repetition",model_name="m"} 0"#.to_owned(),
            "# TYPE vllm:request_success_total counter".to_owned(),
            "# TYPE vllm:kv_cache_usage_perc gauge".to_owned(),
            r#"http_requests_total{handler="/livez",method="GET",status="200"} 1"#.to_owned(),
            r#"mixgate_denied_total{code="invalid_token"} 1"#.to_owned(),
            format!("vllm:time_to_first_token_seconds_count{{{labels}}} 1"),
        ] {
            assert!(text.lines().any(|given| given == line), "{line}\nis not in\n{text}");
        }
    let info = text
        .lines()
        .find(|line| line.starts_with("vllm:cache_config_info{"))
        .unwrap();
    for label in [
        r#"block_size="16""#,
        r#"num_gpu_blocks="20""#,
        r#"kv_cache_max_concurrency="5.00""#,
    ] {
        assert!(info.contains(label), "{label} is not in {info}");
    }
}

#[test]
fn an_engine_without_blocks_uses_none_of_them() {
    assert!(
        rendered(Stats::default())
            .contains("vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0\n")
    );
}

#[test]
fn numbers_of_tokens_are_counted_in_steps_of_1_2_and_5_up_to_the_context() {
    assert_eq!(series(64), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
    assert_eq!(series(100).last(), Some(&100.0));
    assert_eq!(series(0), [1.0]);
}
