use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::kit::{closed, end, request};
use crate::ledger::{Dimension, Ledger, RequestRecord, UsageQuery, UsageRow};

#[derive(Debug, Clone)]
struct Asked {
    record: RequestRecord,
    /// Prompt, cached, completion.
    tokens: [usize; 3],
}

fn word() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "A", "", "é", "a'b", "%"]).prop_map(str::to_owned)
}

fn a_request() -> impl Strategy<Value = Asked> {
    let names = (word(), word(), option::of(word()), option::of(word()));
    let more = (word(), option::of(word()), 0..400_000_u64);
    let tokens = (0..1000_usize, 0..1000_usize, 0..1000_usize);
    (names, more, tokens).prop_map(
        |(
            (issuer, subject, tenant, client),
            (model, api_key, seconds),
            (prompt, cached, completion),
        )| Asked {
            record: RequestRecord {
                issuer,
                subject,
                tenant,
                client,
                model,
                api_key,
                started_ms: seconds * 1000 + 7,
                ..request("x")
            },
            tokens: [prompt, cached, completion],
        },
    )
}

/// The same, slowly and obviously.
fn model(requests: &[Asked], query: &UsageQuery) -> Vec<UsageRow> {
    let value = |record: &RequestRecord, dimension: &Dimension| match dimension {
        Dimension::Subject => Some(record.subject.clone()),
        Dimension::Tenant => record.tenant.clone(),
        Dimension::Client => record.client.clone(),
        Dimension::Model => Some(record.model.clone()),
        Dimension::ApiKey => record.api_key.clone(),
    };
    let with_issuer = query.by.iter().any(|dimension| {
        matches!(
            dimension,
            Dimension::Subject | Dimension::Tenant | Dimension::Client
        )
    });
    let mut sums = BTreeMap::<_, [u64; 4]>::new();
    for Asked { record, tokens } in requests {
        let second = record.started_ms / 1000;
        let is_asked_for = query.only.iter().all(|(dimension, values)| {
            value(record, dimension).is_some_and(|value| values.contains(&value))
        });
        if second < query.from || second >= query.until || !is_asked_for {
            continue;
        }
        let bucket = query.bucket.map(|width| second / width * width);
        let values: Vec<_> = query.by.iter().map(|it| value(record, it)).collect();
        let issuer = with_issuer.then(|| record.issuer.clone());
        let sum = sums.entry((bucket, values, issuer)).or_default();
        let [prompt, cached, completion] = tokens.map(|tokens| tokens as u64);
        for (sum, part) in sum.iter_mut().zip([1, prompt, cached, completion]) {
            *sum += part;
        }
    }
    let row =
        |((bucket, values, issuer), [requests, prompt, cached, completion]): (_, [u64; 4])| {
            UsageRow {
                bucket,
                values,
                issuer,
                requests,
                prompt,
                cached,
                completion,
            }
        };
    sums.into_iter().map(row).collect()
}

const DIMENSIONS: [Dimension; 5] = [
    Dimension::Subject,
    Dimension::Tenant,
    Dimension::Client,
    Dimension::Model,
    Dimension::ApiKey,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sums_by_every_grouping_equal_those_of_a_naive_model(
        requests in vec(a_request(), 0..60),
        only in option::of((select(DIMENSIONS.to_vec()), vec(word(), 1..4))),
        (from, until) in (0..400_000_u64, 0..400_000_u64),
    ) {
        let ledger = Ledger::in_memory();
        for Asked { record, tokens: [prompt, cached, completion] } in &requests {
            let open = ledger.begin(record.clone(), closed(*prompt, *cached, *completion));
            open.ended(end("stop", 200));
        }
        ledger.flush();
        for chosen in 0..1_u32 << DIMENSIONS.len() {
            let by = DIMENSIONS.into_iter().enumerate();
            let by: Vec<_> = by.filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, it)| it).collect();
            for (from, until) in [(0, u64::MAX), (from, until)] {
                for bucket in [None, Some(86_400), Some(60)] {
                    let query = UsageQuery {
                        from, until, bucket, by: by.clone(), only: only.clone().into_iter().collect(),
                        ..UsageQuery::default()
                    };
                    prop_assert_eq!(ledger.usage(&query).unwrap(), model(&requests, &query), "{:?}", query);
                }
            }
        }
    }
}
