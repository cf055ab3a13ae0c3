//! Permits as the server gets them: by a token, through the gate.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mixgate::auth::{AuthConfig, BuiltinIssuer, Gate, Identity, MintRequest, Permit};
use mixgate::clock::Clock;

/// A gate with the built-in issuer, and callers whom it knows.
pub struct Callers {
    gate: Gate,
    identities: Vec<Arc<Identity>>,
}

impl Callers {
    /// One caller for each subject.
    pub fn new(subjects: &[&str]) -> Self {
        let issuer = BuiltinIssuer::ephemeral().unwrap();
        let gate = Gate::new(
            &AuthConfig::default(),
            Some(issuer.clone()),
            Clock::system(),
        )
        .unwrap();
        let identity = |subject: &&str| {
            let request = MintRequest {
                subject: (*subject).to_owned(),
                ttl: Duration::from_secs(600),
                scopes: "chat".to_owned(),
                claims: serde_json::Map::new(),
            };
            let token = issuer.mint(&request, gate.clock().unix_seconds()).unwrap();
            Arc::new(gate.verify(token.as_bytes()).unwrap())
        };
        let identities = subjects.iter().map(identity).collect();
        Self { gate, identities }
    }

    /// A permit for the caller of that number.
    pub fn permit(&self, caller: usize) -> Permit {
        let identity = self.identities[caller % self.identities.len()].clone();
        let rights = self
            .gate
            .rights(&identity, Ipv4Addr::LOCALHOST.into())
            .unwrap();
        self.gate.admit(identity, rights).unwrap()
    }
}
