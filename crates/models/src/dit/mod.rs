//! The diffusion transformer (DiT, Peebles & Xie, "Scalable Diffusion Models with Transformers", ICCV 2023), with the
//! structure, names and counts of the released code.

pub mod block;
pub mod embed;
#[cfg(test)]
mod goldens;
mod guidance;
mod init;
mod shapes;
mod text;

use candle_core::{Result, Tensor};
use manifest::dit::DitConfig;

use crate::Hooks;
use crate::builder::builder;
use crate::weights::Tensors;
use block::{Block, FinalLayer};
use embed::{PatchEmbedder, TimestepEmbedder};

pub use guidance::Guidance;
pub use init::{initial_weights, xavier_uniform};
pub use shapes::{MLP_RATIO, POSITION_EMBEDDING, TIMESTEP_FEATURES, elements, named_shapes, released_patch};
pub use text::{LABEL_TABLE, PROJECTION, label_table, label_table_backward};

/// What a prediction is conditioned on, as two vectors per sample.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Embedding of the timestep, `[B, D]`.
    pub t: Tensor,
    /// Embedding of the label, `[B, D]`.
    pub label: Tensor,
}

impl Condition {
    /// `c = t + label`, what modulates the blocks.
    ///
    /// # Errors
    /// Those of candle.
    pub fn c(&self) -> Result<Tensor> {
        &self.t + &self.label
    }
}

/// A diffusion transformer.
#[derive(Debug)]
pub struct Dit {
    config: DitConfig,
    patches: PatchEmbedder,
    positions: Tensor,
    timesteps: TimestepEmbedder,
    labels: Tensor,
    blocks: Vec<Block>,
    last: FinalLayer,
}

impl Dit {
    /// Builds the network on `tensors`, which it shares: where they are variables, gradients reach them.
    ///
    /// # Errors
    /// A tensor is missing or has another shape (unexpected ones are not looked at: see [`crate::weights::check`]).
    pub fn new(config: &DitConfig, tensors: &Tensors) -> Result<Self> {
        let vb = builder(tensors)?;
        let d = config.hidden;
        let block = |i: usize| Block::new(d, config.heads, &vb.pp("blocks").pp(i));
        let out = config.patch * config.patch * config.out_channels();
        Ok(Self {
            patches: PatchEmbedder::new(d, config.channels, config.patch, &vb.pp("x_embedder"))?,
            positions: vb.get((1, config.tokens(), d), POSITION_EMBEDDING)?,
            timesteps: TimestepEmbedder::new(d, &vb.pp("t_embedder"))?,
            labels: vb.get((config.label_rows(), d), LABEL_TABLE)?,
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            last: FinalLayer::new(d, out, &vb.pp("final_layer"))?,
            config: config.clone(),
        })
    }

    /// Its shape.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Embeds timesteps and labels. Label dropout is the caller's: a dropped label is the null class, `classes`.
    ///
    /// # Shapes
    /// `t` `[B]` (any float), `labels` `[B]` in `u32`.
    ///
    /// # Errors
    /// A label beyond the table.
    pub fn condition(&self, t: &Tensor, labels: &Tensor) -> Result<Condition> {
        Ok(Condition { t: self.timesteps.forward(t)?, label: self.labels.index_select(labels, 0)? })
    }

    /// Predicts the noise (and the variance, where the model learns it) in `x`.
    ///
    /// # Shapes
    /// `x` `[B, C, side, side]` to `[B, out channels, side, side]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, condition: &Condition, hooks: &dyn Hooks) -> Result<Tensor> {
        let c = condition.c()?;
        let mut x = self.patches.forward(x)?.broadcast_add(&self.positions)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&hooks.before_block(i, x)?, &c)?;
        }
        self.unpatchify(&self.last.forward(&hooks.after_blocks(x)?, &c)?)
    }

    /// `[B, T, patch * patch * out channels]` to `[B, out channels, side, side]`.
    fn unpatchify(&self, x: &Tensor) -> Result<Tensor> {
        let (p, c) = (self.config.patch, self.config.out_channels());
        let (b, side) = (x.dim(0)?, self.config.image_size);
        let patches = x.reshape((b, side / p, side / p, p, p, c))?.permute([0, 5, 1, 3, 2, 4])?;
        patches.reshape((b, c, side, side))
    }
}
