//! What happens below HTTP: connections, handshakes, certificates.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::VALID;
use crate::server::peer::Door;

/// Counted by the listener.
pub(in crate::server) struct Transport {
    connections: IntGaugeVec,
    turned_away: IntCounter,
    handshakes_failed: IntCounter,
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
}

impl Transport {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID);
            registry.register(Box::new(gauges.clone())).expect(VALID);
            gauges
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect(VALID);
            registry.register(Box::new(counter.clone())).expect(VALID);
            counter
        };
        let reloads = IntCounterVec::new(
            Opts::new(
                "mixgate_tls_reloads_total",
                "Times that the certificates were read anew, by result.",
            ),
            &["result"],
        )
        .expect(VALID);
        registry.register(Box::new(reloads.clone())).expect(VALID);
        Self {
            connections: gauges(
                "mixgate_connections",
                "Open connections, by door.",
                &["door"],
            ),
            turned_away: counter(
                "mixgate_connections_turned_away_total",
                "Connections closed at once because their address has its share.",
            ),
            handshakes_failed: counter(
                "mixgate_tls_handshakes_failed_total",
                "TLS handshakes that came to nothing.",
            ),
            expiry: gauges(
                "mixgate_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in force expires, in Unix seconds.",
                &["door"],
            ),
            reloads,
        }
    }

    /// A connection is open until the value drops.
    pub(in crate::server) fn connected(&self, door: Door) -> Connected {
        let gauge = self.connections.with_label_values(&[door.name()]);
        gauge.inc();
        Connected(gauge)
    }

    pub(in crate::server) fn turned_away(&self) {
        self.turned_away.inc();
    }

    pub(in crate::server) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// When the certificate in force expires; an authority's is not known here.
    pub(in crate::server) fn certificate(&self, expires: Option<i64>) {
        if let Some(expires) = expires {
            let door = Door::Public.name();
            self.expiry.with_label_values(&[door]).set(expires);
        }
    }

    pub(in crate::server) fn reloaded(&self, well: bool) {
        let result = if well { "ok" } else { "failed" };
        self.reloads.with_label_values(&[result]).inc();
    }
}

/// An open connection.
pub(in crate::server) struct Connected(IntGauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}
