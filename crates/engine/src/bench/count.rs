//! Operations and memory of a work, counted from its shape alone.

use kernels::Shape;

use super::work::{Network, Work};
use crate::trunk::fast;

/// What a repetition of a work must at least compute and keep: the trunk as [`Shape::forward_flops`] and its neighbours count
/// it. The gate is left out (it sees one row an image, like modulations).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Operations.
    pub flops: f64,
    /// Bytes of activations that a frozen step keeps for its backward pass, the whole batch at once.
    pub activation_bytes: Option<u64>,
}

impl Count {
    /// Of one repetition of `work`.
    pub fn of(work: Work) -> Self {
        let all_images =
            |network: Network, flops: fn(&Shape) -> f64| network.batch() as f64 * flops(&fast::shape(&network.dit()));
        let frozen = |s: &Shape| s.forward_flops() + s.backward_flops();
        match work {
            Work::Dmp(network) => {
                let kept = network.batch() * fast::shape(&network.dit()).kept_bytes();
                Self { flops: all_images(network, frozen), activation_bytes: Some(kept as u64) }
            }
            Work::Full(network) => {
                let flops = all_images(network, frozen) + all_images(network, Shape::weight_gradient_flops);
                Self { flops, activation_bytes: None }
            }
            Work::Sample(network) => {
                let flops = Work::SAMPLING_STEPS as f64 * all_images(network, Shape::forward_flops);
                Self { flops, activation_bytes: None }
            }
            Work::Distance => Self { flops: distance(Work::FEATURES), activation_bytes: None },
            Work::Coverage => Self { flops: coverage(Work::SAMPLES, Work::FEATURES), activation_bytes: None },
        }
    }
}

/// `tr (F S F^T)^1/2` with a triangular factor `F`: the factor `d^3 / 3`, a triangular product `d^3`, the lower half of
/// another `2 d^3 / 3`, and the reduction to tridiagonal form `4 d^3 / 3` (Golub & Van Loan 2013, 4.2, 8.3).
fn distance(dimensions: usize) -> f64 {
    (dimensions as f64).powi(3) * (1.0 / 3.0 + 1.0 + 2.0 / 3.0 + 4.0 / 3.0)
}

/// The products of all pairs within both sets, each once, and of all pairs between them.
fn coverage(samples: usize, dimensions: usize) -> f64 {
    4.0 * (samples as f64).powi(2) * dimensions as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twice the multiplications of the tensors by name, as each token meets each weight once, and of attention.
    fn forward_by_name(network: Network) -> f64 {
        let dit = network.dit();
        let of_tokens = |name: &str| {
            [".attn.", ".mlp.fc", "x_embedder", "final_layer.linear"].iter().any(|part| name.contains(part))
        };
        let weights = models::dit::named_shapes(&dit).into_iter().filter(|(name, _)| name.ends_with(".weight"));
        let per_token: usize =
            weights.filter(|(name, _)| of_tokens(name)).map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let (tokens, head) = (dit.tokens(), dit.hidden / dit.heads);
        let pairs = dit.depth * dit.heads * tokens * tokens;
        2.0 * (tokens * per_token + pairs * head + pairs * head) as f64
    }

    #[test]
    fn samples_cost_what_the_tensors_say() {
        for network in [Network::Nano, Network::DitS2, Network::DitXl2] {
            let expected = (network.batch() * Work::SAMPLING_STEPS) as f64 * forward_by_name(network);
            assert_eq!(Count::of(Work::Sample(network)).flops, expected, "{network:?}");
        }
    }

    #[test]
    fn only_a_frozen_step_has_counted_activations() {
        let counted: Vec<&str> =
            Work::ALL.into_iter().filter(|&work| Count::of(work).activation_bytes.is_some()).map(Work::name).collect();
        assert_eq!(counted, ["nano-dmp", "s2-dmp", "b2-dmp", "l2-dmp", "xl2-dmp"]);
    }
}
