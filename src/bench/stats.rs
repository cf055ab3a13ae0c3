//! Means and percentiles, as numpy computes them.

/// The distribution of a measure. All zero if there was nothing to measure, as in vLLM's results.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// How many values there were.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population.
    pub std: f64,
    /// The values, ascending.
    sorted: Vec<f64>,
}

impl Distribution {
    /// The distribution of `values`, in any order.
    pub fn of(mut values: Vec<f64>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        values.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            count,
            mean,
            std: (squares / count as f64).sqrt(),
            sorted: values,
        }
    }

    /// The value below which `percent` of the values lie, interpolated linearly between the two nearest.
    pub fn percentile(&self, percent: f64) -> f64 {
        let Some(last) = self.sorted.len().checked_sub(1) else {
            return 0.0;
        };
        let place = percent.clamp(0.0, 100.0) / 100.0 * last as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(last);
        let low = self.sorted[below];
        low + (self.sorted[above] - low) * (place - below as f64)
    }

    /// The 50th percentile.
    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    /// The greatest value.
    pub fn max(&self) -> f64 {
        self.percentile(100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    /// Computed with numpy 2: `np.percentile(x, p)`, `np.mean(x)`, `np.std(x)`.
    #[test]
    fn percentiles_are_those_of_numpy() {
        let values = vec![15.0, 20.0, 35.0, 40.0, 50.0];
        let distribution = Distribution::of(values);
        assert!(close(distribution.mean, 32.0));
        assert!(close(distribution.std, 12.884_098_726_725_126));
        for (percent, wanted) in [
            (0.0, 15.0),
            (5.0, 16.0),
            (30.0, 23.0),
            (40.0, 29.0),
            (50.0, 35.0),
            (90.0, 46.0),
            (95.0, 48.0),
            (99.0, 49.6),
            (100.0, 50.0),
        ] {
            assert!(close(distribution.percentile(percent), wanted), "{percent}");
        }
    }

    #[test]
    fn the_order_of_values_does_not_matter_and_even_counts_have_a_median_between() {
        let distribution = Distribution::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert!(close(distribution.median(), 2.5));
        assert_eq!(distribution.max(), 4.0);
    }

    #[test]
    fn one_value_is_every_percentile_and_none_is_zero() {
        let one = Distribution::of(vec![7.0]);
        assert_eq!([one.mean, one.median(), one.percentile(99.0)], [7.0; 3]);
        assert_eq!(one.std, 0.0);
        let none = Distribution::of(Vec::new());
        assert_eq!([none.mean, none.median(), none.std, none.max()], [0.0; 4]);
    }
}
