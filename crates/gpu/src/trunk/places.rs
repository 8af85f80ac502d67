//! Where each tensor lies in the flat buffer of [`kernels::Parameters`].

use std::collections::BTreeMap;

use kernels::{Parameters, Shape, ShapeError};

/// First values of the tensors.
pub(super) struct Places {
    pub(super) embed: usize,
    pub(super) embed_bias: usize,
    pub(super) position: usize,
    pub(super) time0: usize,
    pub(super) time0_bias: usize,
    pub(super) time2: usize,
    pub(super) time2_bias: usize,
    pub(super) label: usize,
    pub(super) last: usize,
    pub(super) last_bias: usize,
    pub(super) adaln: usize,
    pub(super) adaln_bias: usize,
    pub(super) blocks: Vec<Block>,
}

/// Those of one block.
pub(super) struct Block {
    pub(super) qkv: usize,
    pub(super) qkv_bias: usize,
    pub(super) proj: usize,
    pub(super) proj_bias: usize,
    pub(super) fc1: usize,
    pub(super) fc1_bias: usize,
    pub(super) fc2: usize,
    pub(super) fc2_bias: usize,
}

impl Places {
    /// Of a shape; also the buffer's length.
    pub(super) fn new(shape: Shape) -> Result<(Self, usize), ShapeError> {
        let parameters = Parameters::zeros(shape)?;
        let starts: BTreeMap<String, usize> =
            parameters.segments().into_iter().map(|s| (s.name, s.range.start)).collect();
        let at = |name: &str| starts[name];
        let layer = |name: &str| (at(&format!("{name}.weight")), at(&format!("{name}.bias")));
        let block = |i: usize| {
            let (qkv, qkv_bias) = layer(&format!("blocks.{i}.attn.qkv"));
            let (proj, proj_bias) = layer(&format!("blocks.{i}.attn.proj"));
            let (fc1, fc1_bias) = layer(&format!("blocks.{i}.mlp.fc1"));
            let (fc2, fc2_bias) = layer(&format!("blocks.{i}.mlp.fc2"));
            Block { qkv, qkv_bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias }
        };
        let (embed, embed_bias) = layer("x_embedder.proj");
        let (time0, time0_bias) = layer("t_embedder.mlp.0");
        let (time2, time2_bias) = layer("t_embedder.mlp.2");
        let (last, last_bias) = layer("final_layer.linear");
        // the blocks' modulations lie one after the other, those of the first block first
        let (adaln, adaln_bias) = layer("blocks.0.adaLN_modulation.1");
        let (position, label) = (at("pos_embed"), at("y_embedder.embedding_table.weight"));
        let blocks = (0..shape.depth).map(block).collect();
        let places = Self {
            embed,
            embed_bias,
            position,
            time0,
            time0_bias,
            time2,
            time2_bias,
            label,
            last,
            last_bias,
            adaln,
            adaln_bias,
            blocks,
        };
        Ok((places, parameters.values().len()))
    }
}
