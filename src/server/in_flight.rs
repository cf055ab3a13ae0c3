//! Counts generations whose response is not finished, so that shutdown can wait for the last one.

use tokio::sync::watch;

/// The count.
#[derive(Default)]
pub(super) struct InFlight(watch::Sender<usize>);

impl InFlight {
    /// Counts one more until the guard drops.
    pub(super) fn enter(&self) -> InFlightGuard {
        self.0.send_modify(|count| *count += 1);
        InFlightGuard(self.0.clone())
    }

    /// Returns once nothing is in flight.
    pub(super) async fn empty(&self) {
        let mut count = self.0.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

/// One generation in flight.
pub(super) struct InFlightGuard(watch::Sender<usize>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn waits_for_the_last_of_those_in_flight() {
        let in_flight = InFlight::default();
        assert!(in_flight.empty().now_or_never().is_some());
        let (one, two) = (in_flight.enter(), in_flight.enter());
        drop(one);
        assert!(in_flight.empty().now_or_never().is_none());
        drop(two);
        assert!(in_flight.empty().now_or_never().is_some());
    }
}
