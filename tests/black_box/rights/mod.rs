//! API keys, rights that are taken away, credentials that expire: over HTTP, while requests wait and run.

mod admin;
mod expiry;
mod keys;
mod revocation;

use std::time::Duration;

use mixgate::clock::{Clock, ManualClock, ManualUptime, Uptime};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::common::secret;
use super::harness::{House, Plan, error_of, logs, refusal, within};
use super::streaming::events;

const NOW: u64 = 1_800_000_000;

/// A house where a request that ignores the end of sequence runs for a minute, and time stands still.
async fn slow_house(change: impl FnOnce(&mut Plan)) -> (House, Time) {
    let ((clock, manual_clock), (uptime, manual_uptime)) = (Clock::manual(NOW), Uptime::manual());
    let mut plan = Plan {
        pace: Duration::from_millis(1),
        max_model_len: 60_000,
        time: (clock, uptime),
        ..Plan::default()
    };
    change(&mut plan);
    let time = Time(manual_clock, manual_uptime);
    (House::with(plan).await, time)
}

struct Time(ManualClock, ManualUptime);

impl Time {
    fn pass(&self, seconds: u64) {
        self.0.advance(Duration::from_secs(seconds));
        self.1.advance(Duration::from_secs(seconds));
    }
}

/// Sends as an administrator.
async fn admin(house: &House, method: &str, path: &str, body: Option<Value>) -> Response {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = house
        .client
        .request(method, house.url(path))
        .bearer_auth(house.admin());
    if let Some(body) = body {
        request = request.json(&body);
    }
    within(request.send()).await.unwrap()
}

async fn ok(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    within(response.json()).await.unwrap()
}

/// The whole error object.
async fn error(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body: Value = within(response.json()).await.unwrap();
    (status, body["error"].clone())
}

fn invalid(param: Option<&str>, code: &str, message: &str) -> (u16, Value) {
    let kind = "invalid_request_error";
    (
        400,
        json!({"message": message, "type": kind, "param": param, "code": code}),
    )
}

async fn new_key(house: &House, fields: Value) -> (String, Value) {
    let made = ok(admin(house, "POST", "/admin/keys", Some(fields)).await).await;
    (secret(made["key"].as_str().unwrap().to_owned()), made)
}

fn chatty() -> Value {
    json!({"sub": "robot", "scope": "chat models"})
}

/// Asks for the models with these headers.
async fn models(house: &House, headers: &[(&str, &str)]) -> Response {
    let mut request = house.client.get(house.url("/v1/models"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    within(request.send()).await.unwrap()
}
