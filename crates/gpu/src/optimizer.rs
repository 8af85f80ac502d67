//! What changes from step to step of AdamW and of the running average.

/// Rates of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate of the weights or prompts, and of the gate.
    pub learning_rates: [f64; 2],
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// How much is kept of the running average; unused where there is none.
    pub decay: f64,
}

impl Rates {
    /// The factors of a group at step `step`, counted from 1: what is kept of a parameter, the step, and the second moment's correction.
    /// `kernels`' AdamW computes the same.
    pub fn factors(&self, group: usize, step: u64) -> [f32; 3] {
        let rate = self.learning_rates[group];
        let corrections = (1.0 - 0.9_f64.powf(step as f64), 1.0 - 0.999_f64.powf(step as f64));
        [(1.0 - rate * self.weight_decay) as f32, (rate / corrections.0) as f32, corrections.1.sqrt() as f32]
    }
}
