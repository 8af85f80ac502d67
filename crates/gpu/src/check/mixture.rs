//! What a patch gives the CPU engine's trunk.

use kernels::Contribution;

use super::trunk::SHAPE;

/// What prompts are weighted by, or what stands in their place.
pub(super) enum Mixed {
    /// `[L', R, N]`.
    Weights(Vec<f32>),
    /// `[L', R, D]`.
    Vectors(Vec<f32>),
}

/// What enters before each block: to the tokens before the first `blocks` of them, or as so many `prepended` in front.
pub(super) fn contributions<'a>(
    [blocks, prepended]: [usize; 2],
    mixed: &'a Mixed,
    prompts: &'a [f32],
) -> Vec<Contribution<'a>> {
    let part = |values: &'a [f32], level: usize| {
        let each = values.len() / blocks;
        &values[level * each..(level + 1) * each]
    };
    let contribution = |level: usize| match (mixed, prepended) {
        _ if level >= blocks => Contribution::None,
        (Mixed::Weights(weights), 0) => {
            Contribution::Weighted { weights: part(weights, level), prompts: part(prompts, level) }
        }
        (Mixed::Weights(weights), _) => {
            Contribution::Prepend { weights: part(weights, level), prompts: part(prompts, level) }
        }
        (Mixed::Vectors(vectors), 0) => Contribution::Broadcast { vectors: part(vectors, level) },
        (Mixed::Vectors(vectors), places) => Contribution::PrependBroadcast { vectors: part(vectors, level), places },
    };
    (0..SHAPE.depth).map(contribution).collect()
}
