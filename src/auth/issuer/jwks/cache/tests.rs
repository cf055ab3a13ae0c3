use super::*;

const S: Duration = Duration::from_secs(1);

fn keys() -> Arc<KeySet> {
    Arc::new(KeySet::new(Vec::new()))
}

/// A cache whose first fetch has brought keys at second 0.
fn filled() -> Cache {
    let mut cache = Cache::new(86_400 * S);
    cache.begin(Duration::ZERO);
    cache.succeed(keys(), None, Duration::ZERO, 0.0);
    cache
}

fn fetch_fails(cache: &mut Cache, now: Duration) {
    cache.begin(now);
    cache.fail(now, 0.0);
}

#[test]
fn the_first_fetch_is_due_at_once_and_tokens_wait_for_it() {
    let mut cache = Cache::new(S);
    assert!(cache.wants_fetch(Duration::ZERO));
    let wait = Miss::Wait {
        after: 0,
        wake: false,
    };
    assert_eq!(cache.miss(Some("a"), Duration::ZERO), wait);
    cache.begin(Duration::ZERO);
    assert!(!cache.wants_fetch(S));
    assert_eq!(cache.miss(None, S), wait);
    assert!(cache.keys(S).is_none() && !cache.had_keys());
}

#[test]
fn the_next_fetch_follows_max_age_within_five_minutes_and_an_hour() {
    for (max_age, due) in [
        (None, 300),
        (Some(0), 300),
        (Some(299), 300),
        (Some(600), 600),
        (Some(86_400), 3600),
        (Some(u64::MAX), 3600),
    ] {
        let mut cache = Cache::new(S);
        cache.succeed(keys(), max_age.map(Duration::from_secs), 100 * S, 0.0);
        assert_eq!(cache.due(), (100 + due) * S, "{max_age:?}");
        assert!(!cache.wants_fetch((99 + due) * S));
        assert!(cache.wants_fetch((100 + due) * S));
    }
}

#[test]
fn jitter_moves_a_fetch_by_a_tenth_at_most() {
    for (jitter, due) in [(-1.0, 270), (1.0, 330), (9.0, 330), (0.5, 315)] {
        let mut cache = Cache::new(S);
        cache.succeed(keys(), None, Duration::ZERO, jitter);
        assert_eq!(cache.due(), due * S);
    }
}

#[test]
fn failures_back_off_from_one_second_to_sixty() {
    let mut cache = Cache::new(S);
    let mut now = Duration::ZERO;
    for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        fetch_fails(&mut cache, now);
        assert_eq!(cache.due() - now, wait * S);
        now = cache.due();
    }
    cache.begin(now);
    cache.succeed(keys(), None, now, 0.0);
    now = cache.due();
    fetch_fails(&mut cache, now);
    assert_eq!(cache.due() - now, S, "a success starts over");
}

#[test]
fn keys_serve_through_an_outage_until_stale_if_error_is_over() {
    let mut cache = filled();
    let end = MIN_REFRESH + 86_400 * S;
    fetch_fails(&mut cache, MIN_REFRESH);
    assert!(cache.keys(end - S).is_some());
    assert!(cache.keys(end).is_none());
    assert!(cache.had_keys());
    assert_eq!(cache.age(end), Some(end));
}

#[test]
fn unknown_ids_cause_one_fetch_per_half_minute_and_two_after_a_pause() {
    let mut cache = filled();
    let mut asked = Vec::new();
    for second in 60..=240 {
        let now = second * S;
        for number in 0..100 {
            let miss = cache.miss(Some(&format!("{second}-{number}")), now);
            if matches!(miss, Miss::Wait { wake: true, .. }) {
                asked.push(second);
                cache.begin(now);
                cache.succeed(keys(), None, now, 0.0);
            }
        }
    }
    assert_eq!(asked, [60, 60, 90, 120, 150, 180, 210, 240]);
}

#[test]
fn a_fetch_that_came_by_itself_counts_as_one_that_tokens_asked_for() {
    let mut cache = filled();
    let wakes = |cache: &mut Cache, kid| {
        let miss = cache.miss(Some(kid), S);
        let wakes = matches!(miss, Miss::Wait { wake: true, .. });
        if wakes {
            cache.begin(S);
            cache.succeed(keys(), None, S, 0.0);
        }
        wakes
    };
    assert!(wakes(&mut cache, "a"));
    assert!(!wakes(&mut cache, "b"));
}

#[test]
fn tokens_join_a_fetch_that_is_under_way() {
    let mut cache = filled();
    let first = cache.miss(Some("a"), 60 * S);
    let expected = |wake| Miss::Wait { after: 1, wake };
    assert_eq!(first, expected(true));
    assert_eq!(cache.miss(Some("b"), 60 * S), expected(false));
    cache.begin(60 * S);
    assert_eq!(cache.miss(Some("c"), 61 * S), expected(false));
    cache.succeed(keys(), None, 61 * S, 0.0);
    assert_eq!(cache.attempts(), 2);
}

#[test]
fn after_a_failure_tokens_cause_no_fetches() {
    let mut cache = filled();
    fetch_fails(&mut cache, MIN_REFRESH);
    assert_eq!(cache.miss(Some("a"), MIN_REFRESH + S / 2), Miss::Refuse);
    assert_eq!(cache.refused_ids(), 1);
}

#[test]
fn an_id_that_a_fetch_did_not_bring_is_refused_for_a_minute() {
    let mut cache = filled();
    cache.waited("a", 60 * S);
    assert_eq!(cache.miss(Some("a"), 119 * S), Miss::Refuse);
    let again = cache.miss(Some("a"), 120 * S);
    assert!(matches!(again, Miss::Wait { wake: true, .. }));
}

#[test]
fn a_failed_fetch_says_nothing_about_an_id() {
    let mut cache = filled();
    fetch_fails(&mut cache, 60 * S);
    cache.waited("a", 60 * S);
    assert!(!cache.unknown.has("a", 60 * S));
}

#[test]
fn ids_that_nobody_has_are_remembered_up_to_a_bound_and_the_oldest_goes_first() {
    let mut cache = filled();
    for number in 0..10_000 {
        cache.waited(&number.to_string(), 60 * S);
        cache.waited(&number.to_string(), 60 * S);
    }
    assert_eq!(cache.unknown.order.len(), MAX_UNKNOWN);
    assert_eq!(cache.unknown.ids.len(), MAX_UNKNOWN);
    assert!(cache.unknown.has("9999", 60 * S) && !cache.unknown.has("0", 60 * S));
    assert!(!cache.unknown.has("9999", 120 * S));
    assert!(cache.unknown.ids.is_empty() && cache.unknown.order.is_empty());
}
