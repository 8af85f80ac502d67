//! Operations and memory of the trunk's passes, counted from its shape alone.
//!
//! A multiplication and an addition count as two operations. Counted are the matrix products over tokens: with `T`
//! tokens, width `D` and `L` blocks a forward pass has `L (24 T D^2 + 4 T^2 D)` an image and two ends. Modulations, which see
//! one row an image and not `T`, are left out (below 1%), as is what a pass only makes again: floors are never too high.

use crate::shape::Shape;

impl Shape {
    /// One image's forward pass.
    pub fn forward_flops(&self) -> f64 {
        self.prefixed_flops(0)
    }

    /// The same with `prefix` more tokens in all blocks, which enter behind the first end and are dropped before the last.
    pub fn prefixed_flops(&self, prefix: usize) -> f64 {
        let tokens = self.tokens() + prefix;
        self.linear_flops(tokens)
            + 2.0 * self.pairs_flops(tokens)
            + self.end_flops(self.patch_in())
            + self.end_flops(self.patch_out())
    }

    /// Gradients of one image's activations, down to the input of the first block. Attention has four products: the
    /// gradients of probabilities, values, queries and keys.
    pub fn backward_flops(&self) -> f64 {
        self.linear_flops(self.tokens()) + 4.0 * self.pairs_flops(self.tokens()) + self.end_flops(self.patch_out())
    }

    /// Gradients of the weights from one image.
    pub fn weight_gradient_flops(&self) -> f64 {
        self.linear_flops(self.tokens()) + self.end_flops(self.patch_in()) + self.end_flops(self.patch_out())
    }

    /// What one image's frozen backward pass needs of its forward pass, in `f32`: of every block the input, queries, keys
    /// and values, attention's output, the middle of the residual stream and the MLP's pre-activation (`10 D` a token), and
    /// what enters the final layer.
    pub fn kept_bytes(&self) -> usize {
        size_of::<f32>() * self.tokens() * self.hidden * (10 * self.depth + 1)
    }

    /// Linear layers of all blocks: qkv `6 T D^2`, projection `2`, the MLP `16`.
    fn linear_flops(&self, tokens: usize) -> f64 {
        24.0 * self.depth as f64 * tokens as f64 * (self.hidden * self.hidden) as f64
    }

    /// In all blocks, one product over pairs of tokens: scores, or their mixture of values.
    fn pairs_flops(&self, tokens: usize) -> f64 {
        2.0 * self.depth as f64 * (tokens * tokens * self.hidden) as f64
    }

    /// The product at an end of the trunk, `values` being those of a patch.
    fn end_flops(&self, values: usize) -> f64 {
        2.0 * (self.tokens() * self.hidden * values) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Scratch;
    use crate::{Learn, Plan, Workspace};

    const NANO: Shape =
        Shape { image_size: 24, channels: 3, patch: 3, hidden: 64, depth: 4, heads: 4, label_rows: 1, out_channels: 6 };
    /// DiT-S/2 on latents of 32x32.
    const SMALL: Shape = Shape {
        image_size: 32,
        channels: 4,
        patch: 2,
        hidden: 384,
        depth: 12,
        heads: 6,
        label_rows: 1001,
        out_channels: 8,
    };

    /// By hand: 30.02 MFLOP; and the paper's 6.06 GMAC of DiT-S/2 (Peebles & Xie 2023, Table 4), which counts modulations too.
    #[test]
    fn forward_passes_of_two_networks() {
        let block = 2 * 64 * (64 * 192 + 64 * 64 + 2 * 64 * 256) + 2 * 2 * 4 * 64 * 64 * 16;
        assert_eq!(NANO.forward_flops(), (4 * block + 2 * 64 * 64 * (27 + 54)) as f64);
        let gmac = SMALL.forward_flops() / 2e9;
        assert!((6.00..6.06).contains(&gmac), "{gmac}");
        // 64 tokens in front of 64: twice the linear layers, four times the pairs.
        let ends = 2 * 64 * 64 * (27 + 54);
        let longer = 2 * 128 * (64 * 192 + 64 * 64 + 2 * 64 * 256) + 2 * 2 * 4 * 128 * 128 * 16;
        assert_eq!(NANO.prefixed_flops(64), (4 * longer + ends) as f64);
    }

    #[test]
    fn a_frozen_step_is_about_two_passes_and_a_full_one_three() {
        for shape in [NANO, SMALL] {
            let frozen = (shape.forward_flops() + shape.backward_flops()) / shape.forward_flops();
            let full = frozen + shape.weight_gradient_flops() / shape.forward_flops();
            assert!((2.0..2.3).contains(&frozen) && (2.85..3.15).contains(&full), "{frozen} {full}");
        }
    }

    /// A frozen step on two threads holds no more than 1.3 times the activations of its batch, transposed weights included.
    #[test]
    fn a_frozen_workspace_holds_little_more_than_its_activations() {
        for (shape, batch) in [(NANO, 64), (SMALL, 4)] {
            let plan = Plan { learn: Learn::Contributions { from: 0 }, ..Plan::sampling(shape, batch, 0) };
            let held = Workspace::new(plan).bytes() + 2 * Scratch::new(&plan).bytes();
            let ratio = held as f64 / (batch * shape.kept_bytes()) as f64;
            assert!(ratio < 1.3, "{ratio}");
        }
    }
}
