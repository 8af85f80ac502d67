//! The UNet against diffusers (goldens, group h), its full list of tensors, its hooks and their gradients.

use std::cell::RefCell;

use candle_core::{DType, Device, Result, Tensor};
use goldens::{Golden, assert_close};
use serde_json::Value;

use super::{BlockInput, PatchShape, Unet, UnetConfig, named_shapes};
use crate::layers::FeatureMap;
use crate::weights::{self, Tensors, Weights, constants, gradients, variables};
use crate::{Hooks, Unpatched};

/// Tolerance of the goldens' README.
const TOLERANCE: f64 = 1e-5;

struct Case {
    golden: Golden,
    config: UnetConfig,
    state: Weights,
}

impl Case {
    fn open() -> Self {
        let golden = Golden::open("unet_tiny");
        let state = golden.group("sd.").into_iter();
        let state = state.map(|(name, array)| (name, weights::Tensor { values: array.f32(), shape: array.shape }));
        Self { config: config(&golden), state: state.collect(), golden }
    }

    fn input(&self, name: &str) -> Tensor {
        let array = self.golden.get(name);
        Tensor::from_vec(array.f32(), array.shape, &Device::Cpu).unwrap()
    }

    fn check(&self, name: &str, ours: &Tensor) {
        let theirs = self.golden.get(name);
        assert_eq!(ours.dims(), theirs.shape, "{name}");
        assert_close(name, &ours.flatten_all().unwrap().to_vec1().unwrap(), &theirs, TOLERANCE);
    }
}

/// The shape as the file's tensors show it; only heads and groups are said elsewhere (README of the goldens).
fn config(golden: &Golden) -> UnetConfig {
    let find = |name: String| golden.find(&name).map(|array| array.shape);
    let width = |i| find(format!("sd.down_blocks.{i}.resnets.0.conv1.weight")).map(|shape| shape[0]);
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let attends = |i| find(format!("sd.down_blocks.{i}.attentions.0.norm.weight")).is_some();
    UnetConfig {
        image_size: golden.get("in.x").shape[2],
        channels: golden.get("in.x").shape[1],
        attending: (0..widths.len()).map(attends).collect(),
        widths,
        depth: (0..).map_while(|i: usize| find(format!("sd.down_blocks.0.resnets.{i}.conv1.weight"))).count(),
        context: golden.get("in.context").shape[2],
        heads: 4,
        groups: 8,
        label_dropout: 0.1,
    }
}

/// Notes what goes into each block.
#[derive(Default)]
struct Seen(RefCell<Vec<Vec<usize>>>);

impl Hooks for Seen {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        assert_eq!(block, self.0.borrow().len());
        self.0.borrow_mut().push(x.dims().to_vec());
        Ok(x)
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

#[test]
fn output_and_what_lies_between() {
    let case = Case::open();
    weights::check("unet_tiny".as_ref(), &case.state, &named_shapes(&case.config).unwrap()).unwrap();
    let unet = Unet::new(&case.config, &constants(&case.state, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let x = case.input("in.x");
    let condition = unet.condition(&case.input("in.t"), &case.input("in.context")).unwrap();
    case.check("mid.time_embedding", &condition.t);
    let first = unet.first.forward(&FeatureMap::from_image(&x).unwrap()).unwrap();
    case.check("mid.conv_in", &first.to_image().unwrap());

    let watch = Watch { case: &case, size: x.dims()[2..].to_vec() };
    case.check("out", &unet.forward(&x, &condition, &watch).unwrap());

    let seen = Seen::default();
    unet.forward(&x, &condition, &seen).unwrap();
    let (b, _, height, width) = x.dims4().unwrap();
    let shapes = |input: BlockInput| vec![b, input.tokens(), input.channels];
    let expected: Vec<_> = case.config.block_inputs(height, width).into_iter().map(shapes).collect();
    assert_eq!(*seen.0.borrow(), expected);
    assert_eq!(expected.len(), case.config.blocks());
}

/// Compares inputs of blocks with recorded outputs of the blocks before them.
struct Watch<'a> {
    case: &'a Case,
    /// Height and width of the latent.
    size: Vec<usize>,
}

impl Watch<'_> {
    fn check(&self, name: &str, x: &Tensor, input: BlockInput) {
        let map = FeatureMap { values: x.clone(), height: input.height, width: input.width };
        self.case.check(name, &map.to_image().unwrap());
    }
}

impl Hooks for Watch<'_> {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        let levels = self.case.config.widths.len();
        let input = self.case.config.block_inputs(self.size[0], self.size[1])[block];
        if block == levels + 1 {
            self.check("mid.mid_block", &x, input);
        } else if block == levels + 2 {
            self.check("mid.up_blocks.0", &x, input);
        }
        Ok(x)
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        let input = BlockInput { channels: self.case.config.widths[0], height: self.size[0], width: self.size[1] };
        self.check("mid.up_blocks.1.attentions.1", &x, input);
        Ok(x)
    }
}

/// Adds a tensor at the input of every block.
struct Added<'a>(&'a Tensors);

impl Hooks for Added<'_> {
    fn before_block(&self, block: usize, x: Tensor) -> Result<Tensor> {
        x.broadcast_add(&self.0[&block.to_string()])
    }

    fn after_blocks(&self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

/// Each prompt's slope along a random direction against differences of the loss, in double precision.
#[test]
fn gradients_reach_the_input_of_every_block() {
    let case = Case::open();
    let double = |name: &str| case.input(name).to_dtype(DType::F64).unwrap();
    let (x, t, context) = (double("in.x"), double("in.t"), double("in.context"));
    let unet = Unet::new(&case.config, &constants(&case.state, DType::F64, &Device::Cpu).unwrap()).unwrap();
    let condition = unet.condition(&t, &context).unwrap();
    let loss =
        |prompts: &Tensors| unet.forward(&x, &condition, &Added(prompts)).unwrap().sqr().unwrap().sum_all().unwrap();

    let (_, _, height, width) = x.dims4().unwrap();
    let values = |number: usize, len: usize| -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + number * 101) as f32).sin() * 0.1).collect()
    };
    let prompt = |(number, input): (usize, BlockInput)| {
        let len = input.tokens() * input.channels;
        let shape = vec![input.tokens(), input.channels];
        (number.to_string(), weights::Tensor { shape, values: values(number, len) })
    };
    let prompts: Weights = case.config.block_inputs(height, width).into_iter().enumerate().map(prompt).collect();
    let learning = variables(&prompts, DType::F64, &Device::Cpu).unwrap();
    let found = gradients(&loss(&learning), &learning).unwrap();
    for (name, start) in &learning {
        let direction = Tensor::from_vec(values(50, start.elem_count()), start.dims(), &Device::Cpu).unwrap();
        let direction = direction.to_dtype(DType::F64).unwrap();
        let at = |step: f64| {
            let mut moved = learning.clone();
            moved.insert(name.clone(), (start + (&direction * step).unwrap()).unwrap());
            loss(&moved).to_scalar::<f64>().unwrap()
        };
        let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
        let ours = (&found[name] * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((ours - slope).abs() < 1e-6 * slope.abs().max(1e-2), "block {name}: {ours} against {slope}");
    }
}

#[test]
fn names_shapes_and_count_of_the_full_size() {
    let keys: Value = serde_json::from_str(&goldens::model_keys()).unwrap();
    let theirs = &keys["sd-v1-5-unet"];
    let ours = named_shapes(&UnetConfig::stable_diffusion()).unwrap();
    let count: usize = ours.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!((count, count as u64), (859_520_964, theirs["parameters"].as_u64().unwrap()));
    assert_eq!(ours.len(), theirs["tensors"].as_object().unwrap().len());
    for (name, shape) in ours {
        assert_eq!(serde_json::to_value(shape).unwrap(), theirs["tensors"][&name], "{name}");
    }
}

#[test]
fn the_patch_has_the_size_of_our_reading() {
    let patch = PatchShape::new(&UnetConfig::stable_diffusion(), 32, 32);
    assert_eq!((patch.prompts.len(), patch.gate_inputs, patch.gate_outputs), (9, 1281, 1024));
    assert_eq!((patch.prompt_elements(), patch.gate_elements()), (1_576_960, 1_312_768));
    assert_eq!(patch.elements(), 2_889_728);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let case = Case::open();
    let unet = Unet::new(&case.config, &constants(&case.state, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let condition = unet.condition(&case.input("in.t"), &case.input("in.context")).unwrap();
    let odd = case.input("in.x").narrow(2, 0, 7).unwrap();
    assert!(unet.forward(&odd, &condition, &Unpatched).is_err());
    let config = UnetConfig { attending: vec![true], ..case.config.clone() };
    assert!(named_shapes(&config).is_err());
}
