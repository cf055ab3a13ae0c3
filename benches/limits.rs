//! What limits cost: a token charged while its reservation lasts, with more taken every 256 tokens, and a whole request
//! of no tokens, from admission to the end of its permit.
//!
//! `cargo bench --bench limits`. The clocks are the system's, since reading them is a part of it.

#![allow(clippy::unwrap_used)] // a measurement that fails should stop

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mixgate::auth::{
    AuthConfig, BuiltinIssuer, Gate, Identity, Limit, Measure, MintRequest, Per, Permit, Rights,
};
use mixgate::clock::Clock;

fn limits(criterion: &mut Criterion) {
    let (gate, identity) = gate();
    let mut group = criterion.benchmark_group("limits");
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (name, rights) in [("unlimited", Rights::default()), ("limited", limited())] {
        let rights = Arc::new(rights);
        let admit = || gate.admit(identity.clone(), rights.clone()).unwrap();
        for (how, explicit) in [("covered", true), ("topped up", false)] {
            let permit = admit();
            permit.reserve(1000, 1, MANY, explicit).unwrap();
            group.bench_function(format!("charge/{name}/{how}"), |bencher| {
                bencher.iter(|| black_box(permit.charge()));
            });
        }
        group.bench_function(format!("request/{name}"), |bencher| {
            bencher.iter(|| request(admit()));
        });
        group.bench_function(format!("standing/{name}"), |bencher| {
            bencher.iter(|| black_box(gate.standing(&identity, &rights)));
        });
    }
    group.finish();
}

fn request(permit: Permit) {
    permit.reserve(1000, 1, 256, true).unwrap();
    black_box(&permit);
}

/// One limit of each measure, none of which is ever reached.
fn limited() -> Rights {
    let measures = [
        Measure::RequestsPerMinute,
        Measure::TokensPerMinute,
        Measure::ConcurrentSequences,
        Measure::TokensPerDay,
        Measure::TokensPerMonth,
    ];
    let limit = |measure| Limit {
        measure,
        per: Per::Subject,
        most: 1 << 60,
    };
    Rights {
        limits: measures.map(limit).into(),
        ..Rights::default()
    }
}

fn gate() -> (Gate, Arc<Identity>) {
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let clock = Clock::system();
    let request = MintRequest {
        subject: "bench".to_owned(),
        ttl: Duration::from_secs(600),
        scopes: "chat".to_owned(),
        claims: Default::default(),
    };
    let token = issuer.mint(&request, clock.unix_seconds()).unwrap();
    let gate = Gate::new(&AuthConfig::default(), Some(issuer), clock).unwrap();
    let identity = gate.verify(token.as_bytes()).unwrap();
    (gate, Arc::new(identity))
}

/// Tokens that no run uses up.
const MANY: usize = 1 << 40;

criterion_group!(benches, limits);
criterion_main!(benches);
