use serde_json::{Value, json};

use super::page::page;
use super::params::Params;
use crate::ledger::{Dimension, UsageRow};
use crate::server::ApiError;

const DAY: u64 = 86_400;
/// 2026-11-24, midnight UTC.
const TODAY: u64 = 1_795_478_400;

/// Understands `a=1&b=2`, at noon.
fn parse(query: &str) -> Result<Params, ApiError> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs: Vec<_> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Params::parse(&pairs, TODAY + DAY / 2)
}

fn row(bucket: u64, values: &[Option<&str>], prompt: u64) -> UsageRow {
    UsageRow {
        bucket: Some(bucket),
        issuer: None,
        values: values
            .iter()
            .map(|value| value.map(str::to_owned))
            .collect(),
        requests: 2,
        prompt,
        cached: 4,
        completion: 3,
    }
}

#[test]
fn what_is_left_out_is_a_week_of_days_until_now() {
    let params = parse(&format!("start_time={}", TODAY - DAY)).unwrap();
    let query = params.query();
    assert_eq!((query.from, query.until), (TODAY - DAY, TODAY + DAY));
    assert_eq!(
        (query.bucket, query.by, params.limit),
        (Some(DAY), vec![], 7)
    );
    assert_eq!(params.next_page(), None);
}

#[test]
fn lists_come_in_any_of_three_spellings() {
    for text in [
        "group_by=model&group_by=user_id&models=a&models=b",
        "group_by[]=model&group_by[]=user_id&models[]=a&models[]=b",
        "group_by[0]=model&group_by[1]=user_id&models[0]=a&models[1]=b",
    ] {
        let query = parse(&format!("start_time=1&{text}")).unwrap().query();
        assert_eq!(query.by, [Dimension::Model, Dimension::Subject]);
        let models = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(query.only, [(Dimension::Model, models)]);
    }
}

#[test]
fn a_bad_parameter_is_named() {
    let big = "9".repeat(30);
    for (query, param, message) in [
        ("limit=1", "start_time", "'start_time' is required."),
        (
            "start_time=x",
            "start_time",
            "'start_time' must be a whole number.",
        ),
        (
            "start_time=-1",
            "start_time",
            "'start_time' must be a whole number.",
        ),
        (
            &*format!("start_time={big}"),
            "start_time",
            "'start_time' must be a whole number.",
        ),
        (
            "start_time=1795478400000",
            "start_time",
            "'start_time' must be in Unix seconds, at most 253402300799.",
        ),
        (
            "start_time=1&start_time=2",
            "start_time",
            "'start_time' must be given once.",
        ),
        (
            "start_time=5&end_time=5",
            "end_time",
            "'end_time' must be later than start_time.",
        ),
        (
            "start_time=1&bucket_width=2d",
            "bucket_width",
            "'bucket_width' must be 1m, 1h or 1d.",
        ),
        (
            "start_time=1&limit=0",
            "limit",
            "'limit' must be from 1 to 31 for this bucket_width.",
        ),
        (
            "start_time=1&bucket_width=1h&limit=169",
            "limit",
            "'limit' must be from 1 to 168 for this bucket_width.",
        ),
        (
            "start_time=1&group_by=colour",
            "group_by",
            "'group_by' must be project_id, user_id, api_key_id, model, batch, service_tier or api_source.",
        ),
        (
            "start_time=1&batch=maybe",
            "batch",
            "'batch' must be true or false.",
        ),
        (
            "start_time=1&colour=red",
            "colour",
            "Unknown parameter: 'colour'.",
        ),
        (
            "start_time=1&limit[]=3",
            "limit[]",
            "Unknown parameter: 'limit[]'.",
        ),
    ] {
        let error = parse(query).unwrap_err();
        let said = (error.status().as_u16(), error.param(), error.message());
        assert_eq!(said, (400, Some(param), message), "{query}");
    }
    for page in ["x", "page_", "page_5", "page_99999999999999", "page_86401"] {
        let error = parse(&format!("start_time=10&end_time=900000&page={page}")).unwrap_err();
        assert_eq!(
            error.message(),
            "'page' must be the next_page of an answer to this query."
        );
    }
}

#[test]
fn pages_follow_each_other_without_gap_or_overlap() {
    let query = format!(
        "start_time={}&end_time={}&limit=2",
        TODAY + 5,
        TODAY + 4 * DAY + 9
    );
    let (mut next, mut seen) = (None::<String>, Vec::new());
    loop {
        let more = next.map_or(String::new(), |page| format!("&page={page}"));
        let params = parse(&format!("{query}{more}")).unwrap();
        let said = page(&params, &[]);
        for bucket in said["data"].as_array().unwrap() {
            let number = |name: &str| bucket[name].as_u64().unwrap() - TODAY;
            seen.push((number("start_time"), number("end_time")));
            assert_eq!(bucket["results"], json!([]));
        }
        assert_eq!(said["has_more"], json!(said["next_page"] != Value::Null));
        next = said["next_page"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    let whole = |day: u64| (day * DAY, (day + 1) * DAY);
    let wanted = [
        (5, DAY),
        whole(1),
        whole(2),
        whole(3),
        (4 * DAY, 4 * DAY + 9),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn a_result_has_every_key_and_null_for_what_was_not_asked() {
    let params = parse(&format!(
        "start_time={TODAY}&group_by=project_id&group_by=batch&group_by=model"
    ))
    .unwrap();
    let said = page(&params, &[row(TODAY, &[None, Some("m")], 10)]);
    assert_eq!(
        said,
        json!({
            "object": "page",
            "data": [{
                "object": "bucket", "start_time": TODAY, "end_time": TODAY + DAY,
                "results": [{
                    "object": "organization.usage.completions.result",
                    "input_tokens": 10, "output_tokens": 3, "input_cached_tokens": 4, "input_uncached_tokens": 6,
                    "input_text_tokens": 6, "output_text_tokens": 3, "input_cached_text_tokens": 4,
                    "input_cache_write_tokens": 0, "input_audio_tokens": 0, "input_cached_audio_tokens": 0,
                    "output_audio_tokens": 0, "input_image_tokens": 0, "input_cached_image_tokens": 0,
                    "output_image_tokens": 0, "num_model_requests": 2, "project_id": null, "user_id": null,
                    "api_key_id": null, "model": "m", "batch": false, "service_tier": null, "api_source": null
                }]
            }],
            "has_more": false, "next_page": null
        })
    );
}
