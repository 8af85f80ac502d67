//! All weights of a DiT in one flat buffer, under the names of the authors' state dict.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shape::{Shape, ShapeError};

/// Where one tensor lies in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Name in the state dict, e.g. `blocks.0.attn.qkv.weight`.
    pub name: String,
    /// Row-major dimensions, as in the state dict.
    pub dimensions: Vec<usize>,
    /// Position in the flat buffer.
    pub range: Range<usize>,
}

/// Weights that do not fit the shape.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParametersError {
    /// The shape is unsound.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A tensor is missing.
    #[error("the weights lack `{name}`: they are not those of a DiT of this shape")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor that the shape does not have.
    #[error("the weights hold `{name}`, which a DiT of this shape does not have")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A tensor given twice.
    #[error("the weights hold `{name}` twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// A tensor of another length.
    #[error("`{name}` has {found} values, but {dimensions:?} needs {expected}")]
    Length {
        /// Its name.
        name: String,
        /// Dimensions that the shape asks for.
        dimensions: Vec<usize>,
        /// Their product.
        expected: usize,
        /// Values given.
        found: usize,
    },
}

/// The weights (or a gradient of the same layout): embedders, then block after block, the final layer, and last the
/// adaLN weights and biases of all blocks and the final layer, each stacked so that one matrix product serves all.
#[derive(Clone, Debug)]
pub struct Parameters {
    shape: Shape,
    values: Vec<f32>,
    version: u64,
}

/// Never given twice: equal versions mean equal values.
fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The eight tensors of one block's two branches, as slices.
#[derive(Clone, Copy)]
pub(crate) struct BlockWeights<'a> {
    pub(crate) qkv: &'a [f32],
    pub(crate) qkv_bias: &'a [f32],
    pub(crate) proj: &'a [f32],
    pub(crate) proj_bias: &'a [f32],
    pub(crate) fc1: &'a [f32],
    pub(crate) fc1_bias: &'a [f32],
    pub(crate) fc2: &'a [f32],
    pub(crate) fc2_bias: &'a [f32],
}

/// The same eight tensors, to be written (gradients).
pub(crate) struct BlockWeightsMut<'a> {
    pub(crate) qkv: &'a mut [f32],
    pub(crate) qkv_bias: &'a mut [f32],
    pub(crate) proj: &'a mut [f32],
    pub(crate) proj_bias: &'a mut [f32],
    pub(crate) fc1: &'a mut [f32],
    pub(crate) fc1_bias: &'a mut [f32],
    pub(crate) fc2: &'a mut [f32],
    pub(crate) fc2_bias: &'a mut [f32],
}

/// Lengths of a block's eight tensors, in order.
fn block_lengths(d: usize) -> [usize; 8] {
    [3 * d * d, 3 * d, d * d, d, 4 * d * d, 4 * d, 4 * d * d, d]
}

impl<'a> BlockWeights<'a> {
    pub(crate) fn split(values: &'a [f32], d: usize) -> Self {
        let mut rest = values;
        let [qkv, qkv_bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias] = block_lengths(d).map(|length| {
            let (head, tail) = rest.split_at(length);
            rest = tail;
            head
        });
        Self { qkv, qkv_bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias }
    }
}

impl<'a> BlockWeightsMut<'a> {
    pub(crate) fn split(values: &'a mut [f32], d: usize) -> Self {
        let mut rest = values;
        let [qkv, qkv_bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias] = block_lengths(d).map(|length| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(length);
            rest = tail;
            head
        });
        Self { qkv, qkv_bias, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias }
    }
}

/// Offsets of the groups of tensors, in the order in which they lie.
pub(crate) struct Offsets {
    pub(crate) embed: Range<usize>,
    pub(crate) embed_bias: Range<usize>,
    pub(crate) position: Range<usize>,
    pub(crate) time0: Range<usize>,
    pub(crate) time0_bias: Range<usize>,
    pub(crate) time2: Range<usize>,
    pub(crate) time2_bias: Range<usize>,
    pub(crate) label: Range<usize>,
    pub(crate) blocks: Range<usize>,
    pub(crate) last: Range<usize>,
    pub(crate) last_bias: Range<usize>,
    pub(crate) adaln: Range<usize>,
    pub(crate) adaln_bias: Range<usize>,
}

impl Offsets {
    pub(crate) fn new(s: &Shape) -> Self {
        let (d, f) = (s.hidden, Shape::TIMESTEP_FEATURES);
        let mut end = 0;
        let mut next = |length: usize| {
            end += length;
            end - length..end
        };
        Self {
            embed: next(d * s.patch_in()),
            embed_bias: next(d),
            position: next(s.tokens() * d),
            time0: next(d * f),
            time0_bias: next(d),
            time2: next(d * d),
            time2_bias: next(d),
            label: next(s.label_rows * d),
            blocks: next(s.depth * Self::block_length(s)),
            last: next(s.patch_out() * d),
            last_bias: next(s.patch_out()),
            adaln: next(s.modulations() * d),
            adaln_bias: next(s.modulations()),
        }
    }

    pub(crate) fn block_length(s: &Shape) -> usize {
        block_lengths(s.hidden).iter().sum()
    }

    pub(crate) fn block(&self, s: &Shape, index: usize) -> Range<usize> {
        let start = self.blocks.start + index * Self::block_length(s);
        start..start + Self::block_length(s)
    }
}

impl Parameters {
    /// All zeros.
    ///
    /// # Errors
    /// [`ShapeError`] where the shape is unsound.
    pub fn zeros(shape: Shape) -> Result<Self, ShapeError> {
        let shape = shape.check()?;
        Ok(Self { shape, values: vec![0.0; Offsets::new(&shape).adaln_bias.end], version: next_version() })
    }

    /// Copies named tensors (in any order) into one buffer.
    ///
    /// # Errors
    /// [`ParametersError`] where a tensor is missing, unknown, given twice or of another length.
    pub fn from_tensors<'t>(
        shape: Shape,
        tensors: impl IntoIterator<Item = (&'t str, &'t [f32])>,
    ) -> Result<Self, ParametersError> {
        let mut ours = Self::zeros(shape)?;
        let mut wanted: std::collections::BTreeMap<String, (Segment, bool)> =
            ours.segments().into_iter().map(|segment| (segment.name.clone(), (segment, false))).collect();
        for (name, values) in tensors {
            let Some((segment, given)) = wanted.get_mut(name) else {
                return Err(ParametersError::Unknown { name: name.to_owned() });
            };
            if std::mem::replace(given, true) {
                return Err(ParametersError::Twice { name: name.to_owned() });
            }
            if values.len() != segment.range.len() {
                return Err(ParametersError::Length {
                    name: name.to_owned(),
                    dimensions: segment.dimensions.clone(),
                    expected: segment.range.len(),
                    found: values.len(),
                });
            }
            ours.values_mut()[segment.range.clone()].copy_from_slice(values);
        }
        match wanted.into_values().find(|(_, given)| !given) {
            Some((segment, _)) => Err(ParametersError::Missing { name: segment.name }),
            None => Ok(ours),
        }
    }

    /// The shape that these weights have.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The flat buffer.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The flat buffer, to be changed in place (an optimizer's step).
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.version = next_version();
        &mut self.values
    }

    /// Changes whenever the values may have changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Every tensor's name, dimensions and place, in the order in which they lie.
    pub fn segments(&self) -> Vec<Segment> {
        let (s, at) = (&self.shape, Offsets::new(&self.shape));
        let (d, f) = (s.hidden, Shape::TIMESTEP_FEATURES);
        let mut segments = Vec::new();
        let mut add = |name: String, dimensions: &[usize], start: usize| {
            let range = start..start + dimensions.iter().product::<usize>();
            segments.push(Segment { name, dimensions: dimensions.to_vec(), range });
        };
        add("x_embedder.proj.weight".into(), &[d, s.channels, s.patch, s.patch], at.embed.start);
        add("x_embedder.proj.bias".into(), &[d], at.embed_bias.start);
        add("pos_embed".into(), &[1, s.tokens(), d], at.position.start);
        add("t_embedder.mlp.0.weight".into(), &[d, f], at.time0.start);
        add("t_embedder.mlp.0.bias".into(), &[d], at.time0_bias.start);
        add("t_embedder.mlp.2.weight".into(), &[d, d], at.time2.start);
        add("t_embedder.mlp.2.bias".into(), &[d], at.time2_bias.start);
        add("y_embedder.embedding_table.weight".into(), &[s.label_rows, d], at.label.start);
        for block in 0..s.depth {
            let tensors: [(&str, &[usize]); 8] = [
                ("attn.qkv.weight", &[3 * d, d]),
                ("attn.qkv.bias", &[3 * d]),
                ("attn.proj.weight", &[d, d]),
                ("attn.proj.bias", &[d]),
                ("mlp.fc1.weight", &[4 * d, d]),
                ("mlp.fc1.bias", &[4 * d]),
                ("mlp.fc2.weight", &[d, 4 * d]),
                ("mlp.fc2.bias", &[d]),
            ];
            let mut start = at.block(s, block).start;
            for (name, dimensions) in tensors {
                add(format!("blocks.{block}.{name}"), dimensions, start);
                start += dimensions.iter().product::<usize>();
            }
        }
        add("final_layer.linear.weight".into(), &[s.patch_out(), d], at.last.start);
        add("final_layer.linear.bias".into(), &[s.patch_out()], at.last_bias.start);
        for block in 0..s.depth {
            let name = format!("blocks.{block}.adaLN_modulation.1.weight");
            add(name, &[6 * d, d], at.adaln.start + block * 6 * d * d);
        }
        let name = "final_layer.adaLN_modulation.1.weight";
        add(name.into(), &[2 * d, d], at.adaln.start + s.depth * 6 * d * d);
        for block in 0..s.depth {
            let name = format!("blocks.{block}.adaLN_modulation.1.bias");
            add(name, &[6 * d], at.adaln_bias.start + block * 6 * d);
        }
        add("final_layer.adaLN_modulation.1.bias".into(), &[2 * d], at.adaln_bias.start + s.depth * 6 * d);
        segments
    }

    /// Every tensor's name, dimensions and values.
    pub fn tensors(&self) -> impl Iterator<Item = (Segment, &[f32])> {
        self.segments().into_iter().map(|segment| {
            let values = &self.values[segment.range.clone()];
            (segment, values)
        })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        self.tensors().find(|(segment, _)| segment.name == name).map(|(_, values)| values)
    }

    pub(crate) fn block(&self, index: usize) -> BlockWeights<'_> {
        let range = Offsets::new(&self.shape).block(&self.shape, index);
        BlockWeights::split(&self.values[range], self.shape.hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        let (image_size, channels, patch, hidden) = (4, 2, 2, 8);
        Shape { image_size, channels, patch, hidden, depth: 2, heads: 2, label_rows: 3, out_channels: 4 }
    }

    #[test]
    fn segments_tile_the_buffer() {
        let parameters = Parameters::zeros(shape()).unwrap();
        let mut segments = parameters.segments();
        segments.sort_by_key(|segment| segment.range.start);
        let mut end = 0;
        for segment in &segments {
            assert_eq!(segment.range.start, end, "{}", segment.name);
            end = segment.range.end;
        }
        assert_eq!(end, parameters.values().len());
    }

    #[test]
    fn tensors_survive_the_way_in_and_out() {
        let mut parameters = Parameters::zeros(shape()).unwrap();
        for (i, value) in parameters.values_mut().iter_mut().enumerate() {
            *value = i as f32;
        }
        let tensors: Vec<(String, Vec<f32>)> = parameters.tensors().map(|(s, v)| (s.name, v.to_vec())).collect();
        let borrowed = tensors.iter().rev().map(|(name, values)| (name.as_str(), values.as_slice()));
        let again = Parameters::from_tensors(shape(), borrowed).unwrap();
        assert_eq!(again.values(), parameters.values());
    }

    #[test]
    fn bad_weights_are_named() {
        let parameters = Parameters::zeros(shape()).unwrap();
        let all: Vec<(Segment, &[f32])> = parameters.tensors().collect();
        let pairs = || all.iter().map(|(s, v)| (s.name.as_str(), *v));
        let text = |r: Result<Parameters, ParametersError>| r.unwrap_err().to_string();
        assert!(text(Parameters::from_tensors(shape(), pairs().skip(1))).contains("lack `x_embedder.proj.weight`"));
        let extra = pairs().chain([("gate.bias", &[0.0][..])]);
        assert!(text(Parameters::from_tensors(shape(), extra)).contains("hold `gate.bias`, which"));
        let twice = pairs().chain(pairs().take(1));
        assert!(text(Parameters::from_tensors(shape(), twice)).contains("twice"));
        let short = pairs().map(|(n, v)| (n, if n == "pos_embed" { &v[1..] } else { v }));
        assert!(text(Parameters::from_tensors(shape(), short)).contains("`pos_embed` has 31 values, but [1, 4, 8]"));
    }
}
