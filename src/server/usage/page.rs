//! Sums as OpenAI writes them: a page of buckets of results.

use serde_json::{Value, json};

use super::params::{Group, Params};
use crate::ledger::UsageRow;

/// The answer. `rows` are those of `params`' query, in the ledger's order.
pub(super) fn page(params: &Params, rows: &[UsageRow]) -> Value {
    let end = params.page_end();
    let mut rows = rows;
    let mut data = Vec::new();
    // A bucket is cut where the asked time begins or ends, so that its sums are those of its time.
    let mut start = params.start;
    while start < end {
        let bucket = start - start % params.width;
        let next = bucket.saturating_add(params.width).min(end);
        let of_it = rows
            .iter()
            .take_while(|row| row.bucket == Some(bucket))
            .count();
        let (these, rest) = rows.split_at(of_it);
        rows = rest;
        let results: Vec<Value> = these.iter().map(|row| result(params, row)).collect();
        data.push(
            json!({"object": "bucket", "start_time": start, "end_time": next, "results": results}),
        );
        start = next;
    }
    let next_page = params.next_page();
    json!({"object": "page", "data": data, "has_more": next_page.is_some(), "next_page": next_page})
}

/// A name that was not asked for is null; audio, images and cache writes there are none.
fn result(params: &Params, row: &UsageRow) -> Value {
    let named = |group: Group| -> Option<&str> {
        let of_the_ledger = params
            .group_by
            .iter()
            .filter(|group| group.dimension().is_some());
        let at = of_the_ledger
            .zip(&row.values)
            .find(|(asked, _)| **asked == group);
        at.and_then(|(_, value)| value.as_deref())
    };
    let asked = |group: Group| params.group_by.contains(&group);
    let uncached = row.prompt.saturating_sub(row.cached);
    json!({
        "object": "organization.usage.completions.result",
        "input_tokens": row.prompt,
        "output_tokens": row.completion,
        "input_cached_tokens": row.cached,
        "input_uncached_tokens": uncached,
        "input_text_tokens": uncached,
        "output_text_tokens": row.completion,
        "input_cached_text_tokens": row.cached,
        "input_cache_write_tokens": 0,
        "input_audio_tokens": 0,
        "input_cached_audio_tokens": 0,
        "output_audio_tokens": 0,
        "input_image_tokens": 0,
        "input_cached_image_tokens": 0,
        "output_image_tokens": 0,
        "num_model_requests": row.requests,
        "project_id": named(Group::Project),
        "user_id": named(Group::User),
        "api_key_id": named(Group::ApiKey),
        "model": named(Group::Model),
        "batch": asked(Group::Batch).then_some(false),
        "service_tier": asked(Group::ServiceTier).then_some("default"),
        "api_source": asked(Group::ApiSource).then_some("unlabeled"),
    })
}
