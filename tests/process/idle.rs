//! What a server costs while nobody asks it anything.

use serde_json::json;

use super::common::within;
use super::harness::Mixgate;

#[tokio::test]
async fn an_idle_engine_takes_no_processor_time_at_all() {
    let server = Mixgate::serve(&[]);
    let asked = server.chat(&json!({"max_tokens": 20})).await;
    assert_eq!(asked.status(), 200);
    within(asked.bytes()).await.unwrap();
    let readiness = async |times| {
        for _ in 0..times {
            let (status, _) = server.readiness().await;
            assert_eq!(status, 200);
        }
        server.engine_effort()
    };
    // It may still be at its last step; two equal readings say that it is not.
    let mut parked = readiness(1).await;
    while parked != readiness(5).await {
        parked = server.engine_effort();
    }
    assert!(parked.0 > 0, "it has computed an answer");
    assert_eq!(readiness(300).await, parked);
}
