//! One issuer's published keys in virtual time: tokio's clock moves when nothing else does.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};
use tokio::time::{advance, sleep};

use super::fetch::{FetchError, Fetched};
use super::*;
use crate::auth::Denied;
use crate::auth::MAX_DEPTH;
use crate::auth::issuer::keys::Key;
use crate::auth::issuer::{Issuer, Keys};
use crate::auth::tests::kit::*;
use crate::auth::token::compact::Compact;
use crate::auth::token::header::Header;
use crate::strict_json;

/// A key server that says what it is told to.
#[derive(Debug, Default)]
struct Idp {
    /// The key set; without one the server is down.
    answer: Mutex<Option<String>>,
    /// Instead of `answer`, once each.
    next: Mutex<VecDeque<String>>,
    delay: Mutex<Duration>,
    max_age: Mutex<Option<Duration>>,
    fetches: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Idp {
    fn publish(&self, keys: &[(&str, &TestKey)]) {
        *self.answer.lock().unwrap() = Some(jwks(keys));
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

/// So that a test can keep the server that an issuer owns.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Idp>);

impl Fetch for Shared {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async {
            let idp = &self.0;
            idp.fetches.fetch_add(1, Ordering::SeqCst);
            let now = idp.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            idp.most_at_once.fetch_max(now, Ordering::SeqCst);
            let delay = *idp.delay.lock().unwrap();
            sleep(delay).await;
            idp.at_once.fetch_sub(1, Ordering::SeqCst);
            let next = idp.next.lock().unwrap().pop_front();
            match next.or_else(|| idp.answer.lock().unwrap().clone()) {
                Some(body) => Ok(Fetched {
                    body: body.into_bytes(),
                    max_age: *idp.max_age.lock().unwrap(),
                }),
                None => Err(FetchError::Unreachable {
                    host: "idp.example".to_owned(),
                    cause: "connection refused".to_owned(),
                }),
            }
        })
    }

    fn url(&self) -> String {
        "https://idp.example/keys".to_owned()
    }
}

fn jwks(keys: &[(&str, &TestKey)]) -> String {
    let keys: Vec<Value> = keys
        .iter()
        .map(|(kid, key)| {
            let mut jwk = key.jwk();
            jwk["kid"] = json!(kid);
            jwk
        })
        .collect();
    json!({"keys": keys}).to_string()
}

/// An issuer whose keys come from `idp`, with its task running.
struct House {
    idp: Arc<Idp>,
    issuer: Issuer,
}

impl House {
    fn open(idp: &Shared) -> Self {
        let mut issuer = Issuer::all(&ed_issuer()).unwrap().remove(0);
        let day = Duration::from_secs(86_400);
        let remote = Remote::new(ISSUER.to_owned(), true, None, day, Box::new(idp.clone()));
        let remote = Arc::new(remote);
        remote.mark_started();
        tokio::spawn(remote.clone().run());
        issuer.keys = Keys::Remote(remote);
        Self {
            idp: idp.0.clone(),
            issuer,
        }
    }

    /// The same, with its first keys at hand: [`ED`] as `a`.
    async fn settled() -> Self {
        let idp = Shared::default();
        idp.0.publish(&[("a", &ED)]);
        let house = Self::open(&idp);
        assert_eq!(house.judge(&token("a", &ED)).await, Ok(()));
        house
    }

    async fn judge(&self, token: &str) -> Result<(), Denied> {
        let token = Compact::split(token.as_bytes())?;
        let header = Header::parse(&token.header)?;
        let claims = strict_json::object(&token.payload, MAX_DEPTH).unwrap();
        self.issuer.prepare(&header).await;
        self.issuer.verify(&header, &token, &claims).map(drop)
    }

    /// The error code, and how long it took to say so.
    async fn code(&self, token: &str) -> (&'static str, Duration) {
        let begun = Instant::now();
        let code = self
            .judge(token)
            .await
            .map_or_else(|denied| denied.code(), |()| "good");
        (code, begun.elapsed())
    }

    fn remote(&self) -> &Remote {
        self.issuer.remote().unwrap()
    }
}

fn token(kid: &str, key: &TestKey) -> String {
    let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#);
    forge(key, &header, &good_claims().to_string())
}

const AT_ONCE: Duration = Duration::ZERO;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets the task do what is due.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_tokens_wait_for_the_first_fetch_and_only_one_is_made() {
    let idp = Shared::default();
    idp.0.publish(&[("a", &ED)]);
    *idp.0.delay.lock().unwrap() = Duration::from_millis(300);
    let house = House::open(&idp);
    let tokens: Vec<String> = (0..50).map(|_| token("a", &ED)).collect();
    let judged =
        futures_util::future::join_all(tokens.iter().map(|token| house.judge(token))).await;
    assert!(judged.iter().all(|judged| *judged == Ok(())));
    assert_eq!(house.idp.fetches(), 1);
    assert_eq!(house.remote().unready(), None);
}

#[tokio::test(start_paused = true)]
async fn without_keys_ever_a_token_is_503_and_readiness_waits() {
    let house = House::open(&Shared::default());
    let denied = house.judge(&token("a", &ED)).await.unwrap_err();
    assert_eq!((denied.status(), denied.code()), (503, "auth_unavailable"));
    assert_eq!(denied.extra_headers()[0], ("retry-after", "5".into()));
    assert_eq!(
        denied.detail(),
        "this issuer's keys could not be fetched: no answer from idp.example: connection refused"
    );
    assert_eq!(house.remote().unready(), Some(ISSUER));
    // What could never be good is not the provider's fault.
    let hmac = forge(&SECRET, r#"{"alg":"HS256","kid":"a"}"#, "{}");
    assert_eq!(house.code(&hmac).await, ("invalid_token", AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_comes_back_is_found_again_by_itself() {
    let house = House::open(&Shared::default());
    sleep(secs(20)).await;
    // 0, 1, 3, 7, 15 s, give or take a tenth.
    assert_eq!(house.idp.fetches(), 5);
    house.idp.publish(&[("a", &ED)]);
    sleep(secs(18)).await;
    assert_eq!(house.code(&token("a", &ED)).await, ("good", AT_ONCE));
    assert_eq!(house.remote().unready(), None);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_random_ids_cause_two_fetches_per_half_minute_and_cost_good_tokens_nothing() {
    let house = House::settled().await;
    *house.idp.delay.lock().unwrap() = secs(1);
    sleep(secs(60)).await;
    let good = token("a", &ED);
    let mut windows = Vec::new();
    for window in 0..4 {
        let before = house.idp.fetches();
        let begun = Instant::now();
        let bad: Vec<String> = (0..2500)
            .map(|number| token(&format!("{window}-{number}"), &OTHER_ED))
            .collect();
        let judged = bad.iter().map(|token| house.code(token));
        let flood = futures_util::future::join_all(judged);
        let honest = async {
            for _ in 0..25 {
                assert_eq!(house.code(&good).await, ("good", AT_ONCE));
                sleep(Duration::from_millis(50)).await;
            }
        };
        let (flood, ()) = tokio::join!(flood, honest);
        assert!(
            flood
                .iter()
                .all(|(code, took)| *code == "invalid_token" && *took <= MAX_WAIT)
        );
        sleep(secs(30) - begun.elapsed()).await;
        windows.push(house.idp.fetches() - before);
    }
    assert!(windows.iter().all(|fetches| *fetches <= 2), "{windows:?}");
    assert!(
        windows.iter().sum::<usize>() >= 4,
        "new ids are looked for: {windows:?}"
    );
    assert_eq!(house.idp.most_at_once.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_found_by_the_first_token_that_names_it_and_a_withdrawn_one_dies() {
    let house = House::settled().await;
    house.idp.publish(&[("b", &OTHER_ED)]);
    assert_eq!(house.code(&token("a", &ED)).await.0, "good");
    let new = token("b", &OTHER_ED);
    let hundred = futures_util::future::join_all((0..100).map(|_| house.judge(&new))).await;
    assert!(hundred.iter().all(|judged| *judged == Ok(())));
    assert_eq!(house.idp.fetches(), 2);
    assert_eq!(house.code(&token("a", &ED)).await.0, "invalid_token");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_key_dies_with_the_next_refresh_although_nobody_asks() {
    let house = House::settled().await;
    house.idp.publish(&[("b", &OTHER_ED)]);
    sleep(secs(331)).await;
    assert_eq!(house.idp.fetches(), 2);
    assert_eq!(house.code(&token("a", &ED)).await.0, "invalid_token");
    assert_eq!(house.code(&token("b", &OTHER_ED)).await, ("good", AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn a_token_waits_two_seconds_at_most_and_the_fetch_goes_on_without_it() {
    let house = House::settled().await;
    *house.idp.delay.lock().unwrap() = secs(4);
    house.idp.publish(&[("a", &ED), ("b", &OTHER_ED)]);
    let new = token("b", &OTHER_ED);
    assert_eq!(house.code(&new).await, ("invalid_token", MAX_WAIT));
    sleep(secs(3)).await;
    assert_eq!(house.code(&new).await, ("good", AT_ONCE));
    assert_eq!(house.idp.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_nobody_has_is_asked_for_once_a_minute() {
    let house = House::settled().await;
    sleep(secs(60)).await;
    let bad = token("nobody", &OTHER_ED);
    for _ in 0..10 {
        assert_eq!(house.code(&bad).await.0, "invalid_token");
    }
    assert_eq!(house.idp.fetches(), 2);
    assert_eq!(house.remote().stats(1).unknown_keys, 9);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_survived_for_a_day_and_then_answered_with_503() {
    let house = House::settled().await;
    *house.idp.answer.lock().unwrap() = None;
    let good = token("a", &ED);
    advance(secs(86_400)).await;
    settle().await;
    assert_eq!(house.code(&good).await.0, "good");
    assert_eq!(house.remote().stats(1).fetches[1].0, "unreachable");
    assert!(house.remote().stats(1).failures > 0);
    advance(secs(400)).await;
    settle().await;
    assert_eq!(house.code(&good).await.0, "auth_unavailable");
    // It was ready once; whether others may come in does not depend on this issuer.
    assert_eq!(house.remote().unready(), None);
    house.idp.publish(&[("a", &ED)]);
    sleep(secs(67)).await;
    assert_eq!(house.code(&good).await, ("good", AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn a_set_without_a_usable_key_leaves_the_last_good_one_in_force() {
    let house = House::settled().await;
    for bad in [
        "",
        "not json",
        "[]",
        r#"{"keys":{}}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","k":"AQAB"}]}"#,
        &json!({"keys": vec![ED.jwk(); 101]}).to_string(),
        &jwks(&[("a", &ED)])[..40],
    ] {
        *house.idp.answer.lock().unwrap() = Some(bad.to_owned());
        let before = house.idp.fetches();
        sleep(secs(400)).await;
        assert!(house.idp.fetches() > before);
        assert_eq!(house.code(&token("a", &ED)).await.0, "good", "{bad}");
    }
    let stats = house.remote().stats(1);
    assert_eq!((stats.fetches[0], stats.fetches[1].1), (("ok", 1), 0));
    assert!(stats.fetches[3].1 >= 9);
    assert_eq!(stats.keys, 1);
}

#[tokio::test(start_paused = true)]
async fn bad_keys_are_dropped_singly_and_the_others_serve() {
    let good = token("a", &ED);
    let mut key = ED.jwk();
    key["kid"] = json!("a");
    let with = |key: &TestKey, changes: Value| {
        let mut jwk = key.jwk();
        jwk.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        jwk.to_string()
    };
    let twice = RSA.jwk().to_string().replacen('{', r#"{"kty":"RSA","#, 1);
    for bad in [
        "null".to_owned(),
        "7".to_owned(),
        "\"a\"".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        with(&SECRET, json!({"kid": "s"})),
        with(&RSA, json!({"kid": "e", "use": "enc", "alg": "RSA-OAEP"})),
        with(&RSA, json!({"kid": "e", "use": ["sig"]})),
        with(&RSA, json!({"kid": "e", "key_ops": ["encrypt"]})),
        with(&RSA, json!({"kid": "e", "d": "AQAB"})),
        with(&RSA, json!({"kid": 7})),
        with(&RSA, json!({"kid": "a\nb"})),
        with(&RSA, json!({"kid": "e", "alg": "ES256"})),
        with(&RSA, json!({"kid": "e", "n": "AQAB"})),
        with(&P256, json!({"kid": "e", "crv": "secp256k1"})),
        with(&P256, json!({"kid": "e", "y": "AQAB"})),
        with(&ED, json!({"kid": "e", "x": "AQAB=="})),
        twice,
        "[".repeat(100) + &"]".repeat(100),
    ] {
        let parsed = set::parse(format!(r#"{{"keys":[{bad},{key}]}}"#).as_bytes(), None).unwrap();
        assert_eq!(parsed.keys.ids().collect::<Vec<_>>(), ["a"], "{bad}");
        assert_eq!(parsed.dropped.len(), 1, "{bad}");
        assert!(
            parsed.dropped[0].starts_with("key 1: "),
            "{:?}",
            parsed.dropped
        );
        assert!(!parsed.dropped[0].contains("AQAB"), "{:?}", parsed.dropped);
    }
    let house = House::settled().await;
    let set = format!(
        r#"{{"x":1,"keys":[{},{key}]}}"#,
        with(&SECRET, json!({"kid": "a"}))
    );
    *house.idp.answer.lock().unwrap() = Some(set);
    sleep(secs(400)).await;
    assert_eq!(house.code(&good).await.0, "good");
}

#[tokio::test(start_paused = true)]
async fn a_published_secret_never_verifies() {
    let house = House::settled().await;
    let mut secret = SECRET.jwk();
    secret["kid"] = json!("s");
    let mut key = ED.jwk();
    key["kid"] = json!("a");
    *house.idp.answer.lock().unwrap() = Some(json!({"keys": [secret, key]}).to_string());
    sleep(secs(400)).await;
    let forged = forge(
        &SECRET,
        r#"{"alg":"HS256","kid":"s"}"#,
        &good_claims().to_string(),
    );
    assert_eq!(house.code(&forged).await.0, "invalid_token");
}

#[test]
fn two_keys_of_one_name_are_both_dropped_and_twins_are_one() {
    let set = jwks(&[("a", &ED), ("b", &RSA), ("a", &OTHER_ED)]);
    let parsed = set::parse(set.as_bytes(), None).unwrap();
    assert_eq!(parsed.keys.ids().collect::<Vec<_>>(), ["b"]);
    assert_eq!(
        parsed.dropped,
        ["several different keys have the `kid` `a`; none of them is taken"; 2]
    );
    let twins = jwks(&[("a", &ED), ("a", &ED)]);
    let parsed = set::parse(twins.as_bytes(), None).unwrap();
    assert_eq!((parsed.keys.len(), parsed.dropped.len()), (1, 0));
}

#[test]
fn a_key_that_no_configured_algorithm_fits_is_dropped() {
    let set = jwks(&[("a", &ED), ("b", &RSA), ("c", &P256)]);
    let parsed = set::parse(set.as_bytes(), Some(&[Algorithm::RS256, Algorithm::PS256])).unwrap();
    assert_eq!(parsed.keys.ids().collect::<Vec<_>>(), ["b"]);
    assert_eq!(
        parsed.keys.algorithms(),
        [Algorithm::RS256, Algorithm::PS256]
    );
    let error = set::parse(set.as_bytes(), Some(&[Algorithm::ES384])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "none of the 3 keys is usable (key 1: the key serves none of the configured algorithms)"
    );
}

#[test]
fn a_keys_own_issuer_limits_it_to_the_tenant_that_it_names() {
    let mut jwk = ED.jwk();
    jwk["kid"] = json!("a");
    for (issuer, iss, tenant, may) in [
        (
            "https://l.example/{tenantid}/v2.0",
            "https://l.example/t-1/v2.0",
            Some("t-1"),
            true,
        ),
        (
            "https://l.example/{tenantid}/v2.0",
            "https://l.example/t-1/v2.0",
            Some("t-2"),
            false,
        ),
        (
            "https://l.example/{tenantid}/v2.0",
            "https://l.example/t-1/v2.0",
            None,
            false,
        ),
        (
            "https://l.example/t-1/v2.0",
            "https://l.example/t-1/v2.0",
            Some("t-1"),
            true,
        ),
        (
            "https://l.example/t-1/v2.0",
            "https://l.example/t-1/v2.0",
            None,
            true,
        ),
        (
            "https://l.example/t-2/v2.0",
            "https://l.example/t-1/v2.0",
            Some("t-1"),
            false,
        ),
        (
            "https://other.example/{tenantid}/v2.0",
            "https://l.example/t-1/v2.0",
            Some("t-1"),
            false,
        ),
    ] {
        jwk["issuer"] = json!(issuer);
        let key = Key::new(
            crate::auth::key::jwk::of(jwk.as_object().unwrap()).unwrap(),
            None,
        );
        assert_eq!(
            key.unwrap().may_vouch_for(iss, tenant),
            may,
            "{issuer} {iss} {tenant:?}"
        );
    }
}
