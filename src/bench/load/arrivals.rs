//! When requests are sent in an open loop: computed before the run, whatever the server does.

use rand_distr::{Distribution, Gamma};

use super::{Purpose, random};

/// How requests arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrivals {
    /// Requests per second; infinite: all at once.
    pub rate: f64,
    /// Shape of the gamma distribution of the gaps: 1 is a Poisson process, less is burstier, infinite is a metronome.
    pub burstiness: f64,
    /// Overrides `rate` with one that changes from the first request to the last.
    pub ramp_up: Option<RampUp>,
}

/// A rate that grows over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RampUp {
    /// Requests per second at the first request.
    pub from: f64,
    /// Requests per second at the last request.
    pub to: f64,
    /// By equal factors, not by equal differences.
    pub is_exponential: bool,
}

impl RampUp {
    fn rate(&self, index: usize, count: usize) -> f64 {
        let progress = index as f64 / (count.max(2) - 1) as f64;
        if self.is_exponential {
            self.from * (self.to / self.from).powf(progress)
        } else {
            self.from + (self.to - self.from) * progress
        }
    }
}

impl Arrivals {
    /// Whether requests are spread over time at all.
    pub fn is_paced(&self) -> bool {
        self.ramp_up.is_some() || self.rate.is_finite()
    }

    /// Seconds from the start at which each of `count` requests is due, ascending.
    ///
    /// Without a ramp, the times are stretched so that the last is due at `count / rate`: the sum of random gaps would
    /// miss it by a percent or two, and so would every throughput computed from it.
    pub fn times(&self, count: usize, seed: u64) -> Vec<f64> {
        let mut random = random(seed, Purpose::Arrivals);
        // Gaps with a mean of one, scaled by the rate of their moment.
        let gaps = Gamma::new(self.burstiness, 1.0 / self.burstiness).ok();
        let mut now = 0.0;
        let mut times: Vec<f64> = (0..count)
            .map(|index| {
                let rate = self
                    .ramp_up
                    .map_or(self.rate, |ramp| ramp.rate(index, count));
                let gap = match &gaps {
                    Some(gaps) if self.burstiness.is_finite() => gaps.sample(&mut random),
                    _ => 1.0,
                };
                now += gap / rate;
                now
            })
            .collect();
        if self.ramp_up.is_none() && now > 0.0 {
            let factor = count as f64 / self.rate / now;
            times.iter_mut().for_each(|time| *time *= factor);
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(rate: f64, burstiness: f64) -> Arrivals {
        Arrivals {
            rate,
            burstiness,
            ramp_up: None,
        }
    }

    /// Mean and squared coefficient of variation of the gaps.
    fn moments(times: &[f64]) -> (f64, f64) {
        let gaps: Vec<f64> = std::iter::once(times[0])
            .chain(times.windows(2).map(|pair| pair[1] - pair[0]))
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance / (mean * mean))
    }

    #[test]
    fn gaps_have_the_moments_of_the_gamma_distribution() {
        for burstiness in [0.25, 1.0, 4.0] {
            let times = arrivals(50.0, burstiness).times(20_000, 7);
            let (mean, variation) = moments(&times);
            assert!((mean - 0.02).abs() < 1e-12, "{mean}");
            // The squared coefficient of variation of a gamma distribution is the inverse of its shape.
            let wanted = 1.0 / burstiness;
            assert!(
                (variation / wanted - 1.0).abs() < 0.08,
                "{variation} for {wanted}"
            );
        }
    }

    #[test]
    fn the_last_request_is_due_when_the_rate_says() {
        for seed in 0..20 {
            let times = arrivals(8.0, 1.0).times(40, seed);
            assert!((times[39] - 5.0).abs() < 1e-9, "{}", times[39]);
            assert!(times.is_sorted());
        }
    }

    #[test]
    fn a_metronome_has_equal_gaps() {
        let times = arrivals(10.0, f64::INFINITY).times(5, 0);
        let wanted = [0.1, 0.2, 0.3, 0.4, 0.5];
        for (time, wanted) in times.iter().zip(wanted) {
            assert!((time - wanted).abs() < 1e-12, "{times:?}");
        }
    }

    #[test]
    fn an_infinite_rate_is_all_at_once() {
        assert_eq!(arrivals(f64::INFINITY, 1.0).times(3, 0), [0.0; 3]);
    }

    #[test]
    fn equal_seeds_make_equal_times_and_others_do_not() {
        let arrivals = arrivals(5.0, 1.0);
        assert_eq!(arrivals.times(9, 3), arrivals.times(9, 3));
        assert_ne!(arrivals.times(9, 3), arrivals.times(9, 4));
    }

    #[test]
    fn a_ramp_goes_from_its_first_rate_to_its_last() {
        let ramp = |is_exponential| RampUp {
            from: 1.0,
            to: 100.0,
            is_exponential,
        };
        let rates = |ramp: RampUp| [0, 5, 10].map(|index| ramp.rate(index, 11));
        assert_eq!(rates(ramp(false)), [1.0, 50.5, 100.0]);
        let [first, middle, last] = rates(ramp(true));
        assert_eq!(first, 1.0);
        assert!((middle - 10.0).abs() < 1e-9 && (last - 100.0).abs() < 1e-9);
        assert_eq!(ramp(false).rate(0, 1), 1.0);
        let times = Arrivals {
            burstiness: f64::INFINITY,
            ramp_up: Some(ramp(false)),
            ..arrivals(f64::INFINITY, 1.0)
        }
        .times(3, 0);
        assert!((times[0] - 1.0).abs() < 1e-12 && times[2] > times[1]);
    }
}
