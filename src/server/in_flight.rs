//! Counts responses that are not finished, so that shutdown can wait for the last generation and an idle connection is
//! known as one.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// The count.
#[derive(Default)]
pub(super) struct InFlight(watch::Sender<usize>);

impl InFlight {
    /// Counts one more until the guard drops.
    pub(super) fn enter(&self) -> InFlightGuard {
        self.0.send_modify(|count| *count += 1);
        InFlightGuard(self.0.clone())
    }

    /// Returns once nothing has been in flight for `quiet`.
    pub(super) async fn idle(&self, quiet: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // The sender lives in `self`, so neither wait can fail.
            let _ = count.wait_for(|count| *count == 0).await;
            tokio::select! {
                // Not until it is more than 0: one that came and went between two looks counts too.
                _ = count.changed() => {}
                () = sleep(quiet) => return,
            }
        }
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

    #[tokio::test(start_paused = true)]
    async fn is_idle_only_after_a_whole_quiet_period() {
        let in_flight = InFlight::default();
        let quiet = Duration::from_secs(10);
        let began = tokio::time::Instant::now();
        let ends = async {
            sleep(Duration::from_secs(9)).await;
            let one = in_flight.enter();
            sleep(Duration::from_secs(60)).await;
            drop(one);
        };
        tokio::join!(in_flight.idle(quiet), ends);
        assert_eq!(began.elapsed(), Duration::from_secs(9 + 60 + 10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_at_once_starts_the_quiet_period_anew() {
        let in_flight = InFlight::default();
        let began = tokio::time::Instant::now();
        let visits = async {
            for _ in 0..10 {
                sleep(Duration::from_secs(9)).await;
                drop(in_flight.enter());
            }
        };
        tokio::join!(in_flight.idle(Duration::from_secs(10)), visits);
        assert_eq!(began.elapsed(), Duration::from_secs(90 + 10));
    }

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
