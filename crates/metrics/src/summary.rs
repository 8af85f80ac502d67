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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations() {
        let summary = Summary::of(&[2.0, 4.0, 9.0]).unwrap();
        assert_eq!((summary.count, summary.mean, summary.sd), (3, 5.0, Some(13.0_f64.sqrt())));
        assert_eq!(Summary::of(&[3.0]).unwrap().sd, None);
        assert_eq!(Summary::of(&[]), None);
    }
}
