//! Means over seeds.

/// Mean and standard deviation of independent values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Their number.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation (with `count - 1`); none for one value.
    pub sd: Option<f64>,
}

impl Summary {
    /// Of `values`; none without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let sd = (count > 1).then(|| (squares / (count as f64 - 1.0)).sqrt());
        Some(Self { count, mean, sd })
    }
}

/// One value for each training seed: the mean over its sampling seeds. Samples of one training are not independent
/// trainings, so only the outer level counts towards an interval. Training seeds without any value are left out.
pub fn over_sampling_seeds(values: &[Vec<f64>]) -> Vec<f64> {
    values.iter().filter_map(|of_one_training| Summary::of(of_one_training)).map(|s| s.mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations() {
        let summary = Summary::of(&[2.0, 4.0, 9.0]).unwrap();
        assert_eq!((summary.count, summary.mean, summary.sd), (3, 5.0, Some(13.0_f64.sqrt())));
        assert_eq!(Summary::of(&[3.0]).unwrap().sd, None);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(over_sampling_seeds(&[vec![1.0, 3.0], vec![], vec![5.0]]), [2.0, 5.0]);
    }
}
