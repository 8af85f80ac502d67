//! The Inception score (Salimans et al. 2016).

use rayon::prelude::*;

use crate::FeatureError;
use crate::gaussian::{finite, whole_rows};

/// Mean over splits of `exp(mean_i KL(p_i || m))`, `m` being the mean of the split's `p_i`; from 1 to `classes`, higher is
/// better.
///
/// `probabilities` `[n, classes]` are softmax outputs (the published figures': of the pooled features times the last
/// layer's weights, without its bias). Each split holds `split` samples (published: 5,000), the last one what is left. A
/// probability of 0 adds nothing. Panics if `split` is 0.
///
/// # Errors
/// No samples; values that make no whole rows or are not finite; a row that is no probability distribution.
pub fn inception_score(probabilities: &[f32], classes: usize, split: usize) -> Result<f64, FeatureError> {
    assert!(split > 0, "a split holds samples");
    whole_rows(probabilities.len(), classes)?;
    if probabilities.is_empty() {
        return Err(FeatureError::Empty);
    }
    finite("probability", probabilities.iter().map(|&v| f64::from(v)), classes)?;
    for (row, values) in probabilities.chunks_exact(classes).enumerate() {
        let sum: f64 = values.iter().map(|&p| f64::from(p)).sum();
        // Rounding in f32 leaves some 1e-5 of a thousand classes.
        if values.iter().any(|&p| p < 0.0) || (sum - 1.0).abs() > 1e-3 {
            return Err(FeatureError::NotProbabilities { row, sum });
        }
    }
    let scores: Vec<f64> = probabilities.par_chunks(split * classes).map(|part| score(part, classes)).collect();
    Ok(scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Of one split.
fn score(probabilities: &[f32], classes: usize) -> f64 {
    let n = (probabilities.len() / classes) as f64;
    let mut mean = vec![0.0; classes];
    for row in probabilities.chunks_exact(classes) {
        mean.iter_mut().zip(row).for_each(|(mean, &p)| *mean += f64::from(p) / n);
    }
    let logs: Vec<f64> = mean.iter().map(|mean| mean.ln()).collect();
    let divergence = |row: &[f32]| -> f64 {
        let terms = row.iter().zip(&logs).filter(|&(&p, _)| p > 0.0);
        terms.map(|(&p, log)| f64::from(p) * (f64::from(p).ln() - log)).sum()
    };
    (probabilities.chunks_exact(classes).map(divergence).sum::<f64>() / n).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` rows that are certain of the classes in turn.
    fn certain(n: usize, classes: usize) -> Vec<f32> {
        (0..n * classes).map(|i| f32::from(u8::from(i / classes % classes == i % classes))).collect()
    }

    const SPLIT: usize = 5000;

    #[test]
    fn the_extremes() {
        let score = |p: &[f32], classes, split| inception_score(p, classes, split).unwrap();
        assert!((score(&certain(40, 8), 8, SPLIT) - 8.0).abs() < 1e-12, "certain and even: the number of classes");
        assert!((score(&[0.125; 8 * 5], 8, SPLIT) - 1.0).abs() < 1e-12, "samples that say nothing: 1");
        assert_eq!(score(&[0.2, 0.8], 2, SPLIT), 1.0, "one sample is its own mean");
        assert_eq!(score(&[1.0], 1, SPLIT), 1.0);
    }

    /// By hand: rows (1/2, 1/2) and (1, 0), mean (3/4, 1/4).
    #[test]
    fn two_samples_by_hand() {
        let first = 0.5 * (0.5_f64 / 0.75).ln() + 0.5 * (0.5_f64 / 0.25).ln();
        let expected = (0.5 * (first + (1.0_f64 / 0.75).ln())).exp();
        assert!((inception_score(&[0.5, 0.5, 1.0, 0.0], 2, 10).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn the_last_split_may_be_short() {
        // Splits of two certain classes, then one alone: 2, 2, 1.
        let score = inception_score(&certain(5, 2), 2, 2).unwrap();
        assert!((score - 5.0 / 3.0).abs() < 1e-12, "{score}");
        assert_eq!(inception_score(&certain(5, 2), 2, 1).unwrap(), 1.0);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        let error = |values: &[f32], classes| inception_score(values, classes, 10).unwrap_err();
        assert_eq!(error(&[], 3), FeatureError::Empty);
        assert_eq!(error(&[0.5; 7], 2), FeatureError::Ragged { values: 7, dimensions: 2 });
        assert_eq!(error(&[0.5; 7], 0), FeatureError::Ragged { values: 7, dimensions: 0 });
        assert_eq!(error(&[0.5, 0.5, 1.5, -0.5], 2), FeatureError::NotProbabilities { row: 1, sum: 1.0 });
        assert!(error(&[2.0, 3.0], 2).to_string().contains("logits"));
        assert!(matches!(error(&[0.5, 0.5, f32::NAN, 0.5], 2), FeatureError::NotFinite { row: 1, column: 0, .. }));
    }
}
