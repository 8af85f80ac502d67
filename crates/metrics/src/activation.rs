//! Where and when prompts act: the curves of Figure 7.

use crate::FeatureError;
use crate::gaussian::{finite, whole_rows};

/// Averages of prompt activations over patches and over timesteps.
#[derive(Clone, Debug, PartialEq)]
pub struct StructuralBias {
    /// Temporal: for every timestep, the mean over patches, `[T]`.
    pub temporal: Vec<f64>,
    /// Spatial: for every patch, the mean over timesteps, `[N]`.
    pub spatial: Vec<f64>,
}

impl StructuralBias {
    /// Of row-major `activations` `[T, patches]`, averaged over samples (Figure 7: `T` = 1000, 256 patches). Weights of a
    /// softmax gate sum to 1 over the patches, so their temporal mean alone is flat; what acts on the tokens is the weight
    /// times its prompt.
    ///
    /// # Errors
    /// No timesteps; values that make no whole rows or are not finite.
    pub fn of(activations: &[f32], patches: usize) -> Result<Self, FeatureError> {
        whole_rows(activations.len(), patches)?;
        if activations.is_empty() {
            return Err(FeatureError::Empty);
        }
        finite("activation", activations.iter().map(|&v| f64::from(v)), patches)?;
        let timesteps = activations.len() / patches;
        let mut spatial = vec![0.0; patches];
        let mut temporal = Vec::with_capacity(timesteps);
        for row in activations.chunks_exact(patches) {
            spatial.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
            temporal.push(row.iter().map(|&v| f64::from(v)).sum::<f64>() / patches as f64);
        }
        spatial.iter_mut().for_each(|sum| *sum /= timesteps as f64);
        Ok(Self { temporal, spatial })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_over_either_side() {
        let bias = StructuralBias::of(&[1.0, 2.0, 6.0, 3.0, 4.0, 5.0], 3).unwrap();
        assert_eq!((bias.temporal, bias.spatial), (vec![3.0, 4.0], vec![2.0, 3.0, 5.5]));
        let one = StructuralBias::of(&[0.5], 1).unwrap();
        assert_eq!((one.temporal, one.spatial), (vec![0.5], vec![0.5]));
    }

    #[test]
    fn unusable_activations_are_refused() {
        assert_eq!(StructuralBias::of(&[], 3), Err(FeatureError::Empty));
        assert_eq!(StructuralBias::of(&[1.0; 4], 3), Err(FeatureError::Ragged { values: 4, dimensions: 3 }));
        assert_eq!(StructuralBias::of(&[1.0; 4], 0), Err(FeatureError::Ragged { values: 4, dimensions: 0 }));
        let error = StructuralBias::of(&[1.0, 2.0, 3.0, f32::NAN], 2).unwrap_err();
        assert!(matches!(error, FeatureError::NotFinite { row: 1, column: 1, .. }));
    }
}
