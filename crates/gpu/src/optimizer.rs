//! What changes from step to step of AdamW.

use kernels::Group;

/// The factors of a group at step `step`, counted from 1: what is kept of a parameter, the step, and the second moment's correction.
/// `kernels`' AdamW computes the same.
pub fn factors(group: &Group, step: u64) -> [f32; 3] {
    let corrections = (1.0 - 0.9_f64.powf(step as f64), 1.0 - 0.999_f64.powf(step as f64));
    [
        (1.0 - group.learning_rate * group.weight_decay) as f32,
        (group.learning_rate / corrections.0) as f32,
        corrections.1.sqrt() as f32,
    ]
}
