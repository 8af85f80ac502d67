//! The schedule: which kernels and products run, in which order, over which buffers. The same for a GPU and for the emulator.
//!
//! It is `kernels`' schedule without its chunks: a batch is one piece, its gradients are summed in the kernels. Buffers are made once; a step
//! allocates nothing, waits for nothing and reads nothing back, so that a GPU can capture it as a graph.

mod backward;
mod condition;
mod forward;
mod patch;
mod places;

use kernels::{Learn, Parameters, Plan, Shape};

use crate::array::{Array, Numbers};
use crate::descent::Group;
use crate::launch::{HEAD_WIDTHS, Launcher, MAX_TOKENS, MAX_WIDTH, column_parts};
use crate::machine::{Address, Error, Machine, Precision};
use condition::Condition;
use patch::Size;
pub use patch::{Added, Given, Patch};
use places::Places;

/// No bias.
const NONE: Address = Address::NULL;

/// What is kept of a block for the way back.
struct Kept<M: Machine> {
    qkv: Array<M>,
    softmax: Array<M>,
    attention: Array<M>,
    middle: Array<M>,
    middle_statistics: Array<M>,
    hidden: Array<M>,
    /// Outputs of `attn.proj` and `mlp.fc2`; empty unless all weights learn.
    proj: Array<M>,
    fc2: Array<M>,
}

/// Used within a block and left.
struct Scratch<M: Machine> {
    /// Input or output patches.
    patches: Array<M>,
    /// `[B S, D]` normalised rows, or their gradient.
    normed: Array<M>,
    /// `[B S, D]` a branch's output, or its gradient.
    branch: Array<M>,
    /// `[B S, D]` normalised rows once more; empty unless all weights learn.
    again: Array<M>,
    /// `[B S, 4 D]` GELU's output, or gradients of that width.
    wide: Array<M>,
    /// The same once more; empty unless all weights learn.
    wide_again: Array<M>,
    /// Gradient of the stream.
    dx: Array<M>,
}

/// What only the learning of all weights needs.
struct Full<M: Machine> {
    /// Of all weights, `f32`, laid out as they are. Positions have none.
    gradient: Array<M>,
    /// `[B, (6 L + 2) D]`.
    d_modulations: Array<M>,
    /// Parts of the sums over rows.
    parts: Array<M>,
}

/// A DiT's trunk on a machine, with room for one batch.
pub struct Trunk<'m, M: Machine> {
    l: Launcher<'m, M>,
    plan: Plan,
    shape: Shape,
    /// Of a sequence `S` in the blocks: the image's, and the prompts in front of them.
    tokens: usize,
    places: Places,
    weights: Array<M>,
    condition: Condition<M>,
    /// Each sample's row of the condition.
    rows: Numbers<M>,
    patch: Patch<M>,
    /// `[B S, D]` before each block and after the last; one where nothing learns.
    x: Vec<Array<M>>,
    x_statistics: Vec<Array<M>>,
    kept: Vec<Kept<M>>,
    scratch: Scratch<M>,
    full: Option<Full<M>>,
    /// `[B, C, size, size]`.
    images: Array<M>,
    /// `[B, O, size, size]`.
    output: Array<M>,
    d_output: Array<M>,
}

/// Whether the kernels do what `plan` asks for.
fn check(plan: &Plan, rows: usize) -> Result<(), Error> {
    let s = &plan.shape;
    let refuse = |what: String, reason| Err(Error::Unsupported { what, reason });
    if !HEAD_WIDTHS.contains(&s.head_width()) {
        return refuse(
            format!("heads {} wide", s.head_width()),
            "attention is compiled for heads 16, 32, 64 and 72 wide",
        );
    }
    if s.hidden > MAX_WIDTH || !s.hidden.is_multiple_of(8) {
        return refuse(format!("tokens {} wide", s.hidden), "the width must be a multiple of 8, at most 1280");
    }
    let tokens = s.tokens() + plan.prepended;
    if tokens > MAX_TOKENS {
        let what = format!("{tokens} tokens, of which {} are prompts in front", plan.prepended);
        return refuse(what, "a head of at most 320 tokens fits shared memory");
    }
    if plan.image_gradient {
        return refuse("gradients of images".into(), "they are not written yet: use the CPU");
    }
    match plan.learn {
        Learn::Nothing | Learn::Contributions { from: 0 } => Ok(()),
        Learn::Everything if plan.prepended > 0 => {
            refuse("prompts in front on a trunk that learns".into(), "it is not written yet: use the CPU")
        }
        Learn::Everything if rows == plan.batch => Ok(()),
        Learn::Everything => refuse("weights that learn from shared rows".into(), "each sample has a row of its own"),
        Learn::Attention | Learn::Contributions { .. } => {
            refuse(format!("{:?}", plan.learn), "it is not written yet: use the CPU")
        }
    }
}

impl<'m, M: Machine> Trunk<'m, M> {
    /// Room for batches of `plan`, whose samples share `rows` rows of the condition. Where the plan has prompts in front, they are what is
    /// `added`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kernels do not do what is asked for, [`Error::Memory`] where it does not fit.
    ///
    /// # Panics
    /// If the shape is unsound or the batch empty, or there is nothing to stand in front.
    pub fn new(machine: &'m M, precision: Precision, plan: Plan, rows: usize, added: Added) -> Result<Self, Error> {
        let shape = plan.shape.check().expect("a sound shape");
        assert!(plan.batch > 0 && rows > 0, "a batch has at least one sample");
        assert!(plan.prepended == 0 || added.blocks() > 0, "prompts in front come before the first block");
        check(&plan, rows)?;
        let (places, length) = Places::new(shape).expect("a sound shape");
        let (batch, d, prepended) = (plan.batch, shape.hidden, plan.prepended);
        let tokens = shape.tokens() + prepended;
        let (everything, back) = (plan.learn == Learn::Everything, plan.learn != Learn::Nothing);
        let array = |wanted: bool, count: usize| Array::new(machine, precision, if wanted { count } else { 0 });
        let wide = |wanted: bool, count: usize| Array::new(machine, Precision::F32, if wanted { count } else { 0 });
        let stream = |width: usize| array(true, batch * tokens * width);
        let slots = if back { shape.depth } else { 1 };
        let kept = || -> Result<Kept<M>, Error> {
            Ok(Kept {
                qkv: stream(3 * d)?,
                softmax: wide(true, 2 * batch * shape.heads * tokens)?,
                attention: stream(d)?,
                middle: stream(d)?,
                middle_statistics: wide(true, 2 * batch * tokens)?,
                hidden: stream(shape.mlp())?,
                proj: array(everything, batch * tokens * d)?,
                fc2: array(everything, batch * tokens * d)?,
            })
        };
        let full = || -> Result<Full<M>, Error> {
            let widest = shape.mlp().max(shape.modulations());
            Ok(Full {
                gradient: Array::zeros(machine, Precision::F32, length)?,
                d_modulations: array(true, batch * shape.modulations())?,
                parts: wide(true, column_parts(batch * tokens) * widest)?,
            })
        };
        let streams = if back { shape.depth + 1 } else { 1 };
        Ok(Self {
            l: Launcher { machine, precision },
            plan,
            shape,
            tokens,
            places,
            weights: array(true, length)?,
            condition: Condition::new(machine, precision, &shape, rows)?,
            rows: Numbers::from(machine, &(0..batch).map(|b| (b % rows) as u32).collect::<Vec<_>>())?,
            patch: Patch::new(machine, added, Size { batch, rows, tokens, prepended, width: d })?,
            x: (0..streams).map(|_| stream(d)).collect::<Result<_, _>>()?,
            x_statistics: (0..streams).map(|_| wide(true, 2 * batch * tokens)).collect::<Result<_, _>>()?,
            kept: (0..slots).map(|_| kept()).collect::<Result<_, _>>()?,
            scratch: Scratch {
                patches: stream(shape.patch_in().max(shape.patch_out()))?,
                normed: stream(d)?,
                branch: stream(d)?,
                again: array(everything, batch * tokens * d)?,
                wide: stream(shape.mlp())?,
                wide_again: array(everything, batch * tokens * shape.mlp())?,
                dx: array(back, batch * tokens * d)?,
            },
            full: everything.then(full).transpose()?,
            images: wide(true, batch * shape.image())?,
            output: wide(true, batch * shape.output())?,
            d_output: wide(back, batch * shape.output())?,
        })
    }

    /// Sets the weights.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If they are of another shape.
    pub fn set_weights(&mut self, parameters: &Parameters) -> Result<(), Error> {
        assert_eq!(parameters.shape(), &self.shape, "the weights must have the plan's shape");
        self.set_values(parameters.values())
    }

    /// The same, from the flat buffer of [`Parameters`].
    pub(crate) fn set_values(&mut self, values: &[f32]) -> Result<(), Error> {
        self.weights.write(self.l.machine, values)
    }

    /// Sets timesteps (of training, below 1000) and labels of the rows.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If one lies outside its table, or a length is not that of the rows.
    pub fn set_condition(&mut self, timesteps: &[u32], labels: &[u32]) -> Result<(), Error> {
        assert!(timesteps.iter().all(|t| *t < 1000), "timesteps of training lie below 1000");
        assert!(labels.iter().all(|label| (*label as usize) < self.shape.label_rows), "a label outside the table");
        self.condition.timesteps.write(self.l.machine, timesteps)?;
        self.condition.labels.write(self.l.machine, labels)
    }

    /// Sets each sample's row of the condition.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If a row lies outside, a length is not that of the batch, or all weights learn: then each sample has its own row.
    pub fn set_rows(&mut self, rows: &[u32]) -> Result<(), Error> {
        assert!(self.full.is_none(), "where all weights learn, sample i reads row i");
        assert!(rows.iter().all(|row| (*row as usize) < self.condition.rows), "a row outside the condition");
        self.rows.write(self.l.machine, rows)
    }

    /// Sets the images that the next pass reads.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn set_images(&mut self, images: &[f32]) -> Result<(), Error> {
        self.images.write(self.l.machine, images)
    }

    /// Sets the gradient of the output that the next pass back starts from.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn set_output_gradient(&mut self, d_output: &[f32]) -> Result<(), Error> {
        self.d_output.write(self.l.machine, d_output)
    }

    /// What the patch adds, and its gradients.
    pub fn patch(&self) -> &Patch<M> {
        &self.patch
    }

    /// The same, to be set.
    pub fn patch_mut(&mut self) -> &mut Patch<M> {
        &mut self.patch
    }

    /// The images as they are now. Waits.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub(crate) fn images(&self) -> Result<Vec<f32>, Error> {
        self.images.read(self.l.machine)
    }

    /// The output of the latest pass, `[B, O, size, size]`.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn output(&self) -> Result<Vec<f32>, Error> {
        self.output.read(self.l.machine)
    }

    /// The gradient of all weights of the latest pass back, laid out as they are; `None` where they do not learn.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn gradient(&self) -> Result<Option<Vec<f32>>, Error> {
        self.full.as_ref().map(|full| full.gradient.read(self.l.machine)).transpose()
    }

    /// The weights as the products read them. Waits.
    ///
    /// # Errors
    /// Those of the machine, and of what was launched before.
    pub fn weights(&self) -> Result<Vec<f32>, Error> {
        self.weights.read(self.l.machine)
    }

    /// The network.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Where the timesteps and the labels of the rows are read.
    pub(crate) fn told(&self) -> (Address, Address) {
        (self.condition.timesteps.start(), self.condition.labels.start())
    }

    /// Where the rows' embeddings lie: of the timestep alone, and with the label's added.
    pub(crate) fn embeddings(&self) -> [Address; 2] {
        [self.condition.t_emb.start(), self.condition.c.start()]
    }

    /// Where each sample's row of the condition is read.
    pub(crate) fn places_of_rows(&self) -> Address {
        self.rows.start()
    }

    /// Where images, output and its gradient lie.
    pub(crate) fn ends(&self) -> (Address, Address, Address) {
        (self.images.start(), self.output.start(), self.d_output.start())
    }

    /// All weights with their gradient.
    ///
    /// # Panics
    /// If they do not learn.
    pub(crate) fn trained(&self) -> Group {
        let full = self.full.as_ref().expect("weights that learn");
        Group { values: self.weights.start(), gradient: full.gradient.start(), count: self.weights.len() }
    }
}
