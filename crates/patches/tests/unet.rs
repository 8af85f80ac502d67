//! The UNet's patch: sizes, the sums of its weights, gradients against differences, training and sampling (on the small
//! UNet of the goldens).

use candle_core::{DType, Device, Tensor};
use diffusion::{Denoiser, Kind, MseWeight, Process, Sampler, Schedule, Spacing, TrainingLoss, Variance};
use goldens::Golden;
use manifest::gate::{Architecture, BlockAwareness, Gate, GateInput, GateNoise, Selection, Soft};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, ImportanceFormula, Init, LoadFormula, Lora, Method, Position, PromptTuning,
    Prompts, Zero,
};
use models::Unpatched;
use models::unet::{PatchShape, Unet, UnetConfig};
use models::weights::{self, Tensors, Weights, constants, from_tensors, gradients, variables};
use patches::unet::{UnetPatch, trainable};
use patches::{Trainable, initial_weights};
use random::{Draws, Stream};

const SIDE: usize = 8;

fn config() -> UnetConfig {
    UnetConfig {
        image_size: SIDE,
        channels: 4,
        widths: vec![32, 64],
        attending: vec![true, false],
        depth: 1,
        context: 32,
        heads: 4,
        groups: 8,
        label_dropout: 0.1,
    }
}

fn prompts() -> Prompts {
    Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Zero(Zero {}) }
}

fn dmp(noise: GateNoise) -> Method {
    Method::Dmp(Dmp {
        backbone: Backbone::Pretrained,
        prompts: prompts(),
        gate: Gate {
            architecture: Architecture::Linear,
            selection: Selection::Soft(Soft {}),
            prompts_per_block: BlockAwareness::Distinct,
            input: GateInput::T,
            noise,
            learning_rate_factor: 1.0,
        },
        balance: Balance {
            importance: 1.0,
            importance_formula: ImportanceFormula::Paper,
            load: 0.0,
            load_formula: LoadFormula::Count,
        },
    })
}

fn prompt_tuning() -> Method {
    Method::PromptTuning(PromptTuning { prompts: prompts() })
}

fn build(method: &Method, tensors: &Tensors) -> UnetPatch {
    UnetPatch::build(method, &config(), tensors).unwrap().unwrap()
}

fn unet(dtype: DType) -> Unet {
    let golden = Golden::open("unet_tiny");
    let state = golden.group("sd.").into_iter();
    let state: Weights =
        state.map(|(name, array)| (name, weights::Tensor { values: array.f32(), shape: array.shape })).collect();
    Unet::new(&config(), &constants(&state, dtype, &Device::Cpu).unwrap()).unwrap()
}

fn normals(shape: &[usize], number: u64, std: f32) -> weights::Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    Draws::new(9, Stream::Init, number).fill_normal(0, &mut values);
    values.iter_mut().for_each(|value| *value *= std);
    weights::Tensor { shape: shape.to_vec(), values }
}

fn tensor(shape: &[usize], number: u64, dtype: DType) -> Tensor {
    let tensor = normals(shape, number, 1.0);
    Tensor::from_vec(tensor.values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn random_patch(method: &Method, std: f32) -> Weights {
    let tensors = trainable(method, &config()).unwrap().into_iter().zip(0..);
    tensors.map(|(Trainable { name, shape, .. }, number)| (name, normals(&shape, 100 + number, std))).collect()
}

#[test]
fn the_patch_of_stable_diffusion_has_the_size_of_our_reading() {
    // 256x256 pixels, as the paper counts them.
    let unet = UnetConfig { image_size: 32, ..UnetConfig::stable_diffusion() };
    let tensors = |method: &Method| trainable(method, &unet).unwrap();
    let count = |method: &Method| tensors(method).iter().map(Trainable::elements).sum::<usize>();
    assert_eq!(tensors(&dmp(GateNoise::None)).len(), 9 + 2);
    assert_eq!(count(&dmp(GateNoise::None)), 2_889_728);
    assert_eq!(count(&dmp(GateNoise::Learned)), 2_889_728 + 1280 * 1024);
    assert_eq!(count(&prompt_tuning()), PatchShape::new(&unet, 32, 32).prompt_elements());
}

/// What enters each block.
fn entering(patch: &UnetPatch, unet: &Unet, t: &Tensor) -> Vec<Tensor> {
    patch.mix(&unet.embed(t).unwrap(), None).unwrap().entering().tensors().to_vec()
}

#[test]
fn the_weights_of_every_map_sum_to_one() {
    let (unet, method) = (unet(DType::F64), dmp(GateNoise::None));
    let tensors = constants(&random_patch(&method, 1.0), DType::F64, &Device::Cpu).unwrap();
    let patch = build(&method, &tensors);
    let t = Tensor::new(&[3.0_f64, 700.0], &Device::Cpu).unwrap();
    let mixture = patch.mix(&unet.embed(&t).unwrap(), None).unwrap();
    let (blocks, b, places) = mixture.weights().dims3().unwrap();
    assert_eq!((blocks, b, places), (config().blocks(), 2, SIDE * SIDE));

    // With prompts of ones, what enters a place is its weight.
    let mut ones = tensors.clone();
    for (name, tensor) in tensors.iter().filter(|(name, _)| name.starts_with(patches::PROMPTS)) {
        ones.insert(name.clone(), tensor.ones_like().unwrap());
    }
    let patch = build(&method, &ones);
    let largest = patch.mix(&unet.embed(&t).unwrap(), None).unwrap().weights().to_vec3::<f64>().unwrap();
    let inputs = config().block_inputs(SIDE, SIDE);
    for (block, (input, entered)) in inputs.into_iter().zip(entering(&patch, &unet, &t)).enumerate() {
        let times = SIDE / input.height;
        for (sample, places) in entered.to_vec3::<f64>().unwrap().iter().enumerate() {
            assert!((places.iter().map(|place| place[0]).sum::<f64>() - 1.0).abs() < 1e-12);
            for (place, values) in places.iter().enumerate() {
                let (y, x) = (place / input.width * times, place % input.width * times);
                let covered = (0..times * times).map(|i| (y + i / times) * SIDE + x + i % times);
                let expected: f64 = covered.map(|i| largest[block][sample][i]).sum();
                assert!(values.iter().all(|value| (value - expected).abs() < 1e-12));
            }
        }
    }

    // Without a gate every prompt enters whole.
    let tensors = constants(&random_patch(&prompt_tuning(), 1.0), DType::F64, &Device::Cpu).unwrap();
    for (block, entered) in entering(&build(&prompt_tuning(), &tensors), &unet, &t).into_iter().enumerate() {
        let prompts = tensors[&format!("{}.{block}", patches::PROMPTS)].to_vec2::<f64>().unwrap();
        assert_eq!(entered.to_vec3::<f64>().unwrap(), [prompts.clone(), prompts]);
    }
}

/// Gradients of loss and balance by autograd through everything, by the way back from what enters one sample after the
/// other, and differences of the loss.
#[test]
fn gradients_are_those_of_the_loss() {
    let unet = unet(DType::F64);
    let x = tensor(&[2, 4, SIDE, SIDE], 2, DType::F64);
    let t = Tensor::new(&[3.0_f64, 700.0], &Device::Cpu).unwrap();
    let condition = unet.condition(&t, &tensor(&[2, 5, 32], 1, DType::F64)).unwrap();
    let draws = tensor(&[config().blocks(), 2, SIDE * SIDE], 3, DType::F64);
    for method in [dmp(GateNoise::None), dmp(GateNoise::Learned), prompt_tuning()] {
        let mix = |tensors: &Tensors| build(&method, tensors).mix(&condition.t, Some(&draws)).unwrap();
        let loss = |tensors: &Tensors| {
            let mixture = mix(tensors);
            let output = unet.forward(&x, &condition, mixture.entering()).unwrap();
            let loss = output.sqr().unwrap().sum_all().unwrap();
            mixture.balance().unwrap().map_or(loss.clone(), |balance| (loss + balance.total).unwrap())
        };
        let start = variables(&random_patch(&method, 0.5), DType::F64, &Device::Cpu).unwrap();
        let found = gradients(&loss(&start), &start).unwrap();

        let mixture = mix(&start);
        let of_sample = |i: usize| -> Vec<Tensor> {
            let own = mixture.entering().of_samples(i..i + 1).unwrap();
            let part = |whole: &Tensor| whole.narrow(0, i, 1).unwrap();
            let condition = unet.condition(&part(&t), &part(&condition.context)).unwrap();
            let loss = unet.forward(&part(&x), &condition, &own).unwrap().sqr().unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            own.tensors().iter().map(|tensor| gradients.get(tensor).unwrap().clone()).collect()
        };
        let parts = [of_sample(0), of_sample(1)];
        let stacked: Vec<Tensor> =
            parts[0].iter().zip(&parts[1]).map(|(a, b)| Tensor::cat(&[a, b], 0).unwrap()).collect();
        let back = mixture.backward_from(&stacked).unwrap();

        for (number, (name, value)) in start.iter().enumerate() {
            let direction = tensor(value.dims(), 200 + number as u64, DType::F64);
            let at = |step: f64| {
                let mut moved = start.clone();
                moved.insert(name.clone(), (value + (&direction * step).unwrap()).unwrap());
                loss(&moved).to_scalar::<f64>().unwrap()
            };
            let slope = (8.0 * (at(1e-5) - at(-1e-5)) - (at(2e-5) - at(-2e-5))) / 12e-5;
            for found in [&found, &back] {
                let ours = (&found[name] * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
                let near = (ours - slope).abs() < 1e-6 * slope.abs().max(1.0);
                assert!(slope.abs() > 1e-6 && near, "{name}: {ours} {slope}");
            }
        }
    }
}

#[test]
fn other_tensors_odd_sizes_and_methods_without_meaning_are_refused() {
    let method = dmp(GateNoise::None);
    let tensors = constants(&random_patch(&method, 1.0), DType::F32, &Device::Cpu).unwrap();
    let message = |method: &Method, side: usize| {
        UnetPatch::build(method, &UnetConfig { image_size: side, ..config() }, &tensors).unwrap_err().to_string()
    };
    let error = message(&method, 2 * SIDE);
    assert!(error.contains("prompt_embeddings.0 has shape [64, 32], expected [256, 32]"), "{error}");
    assert!(message(&prompt_tuning(), SIDE).contains("unexpected gate.bias"));
    assert!(message(&method, 7).contains("7 x 7"));
    let lora = Method::Lora(Lora { rank: 4, alpha: 4.0 });
    assert!(message(&lora, SIDE).contains("`kind` can be `lora` on a diffusion transformer only"));
    assert!(trainable(&lora, &config()).is_err());
}

/// A UNet with its patch and guidance, as PNDM calls it.
struct Guided<'a> {
    unet: &'a Unet,
    patch: Option<UnetPatch>,
    contexts: [Tensor; 2],
    scale: f64,
}

impl Denoiser for Guided<'_> {
    type Error = candle_core::Error;

    fn denoise(&mut self, x: &[f32], t: usize, out: &mut [f32]) -> candle_core::Result<()> {
        let b = x.len() / (4 * SIDE * SIDE);
        let x = Tensor::from_slice(x, (b, 4, SIDE, SIDE), &Device::Cpu)?;
        let predict = |context: &Tensor| {
            let condition = self.unet.condition(&Tensor::full(t as f32, b, &Device::Cpu)?, context)?;
            match &self.patch {
                Some(patch) => self.unet.forward(&x, &condition, patch.mix(&condition.t, None)?.entering()),
                None => self.unet.forward(&x, &condition, &Unpatched),
            }
        };
        let [with, without] = [predict(&self.contexts[0])?, predict(&self.contexts[1])?];
        let guided = (&without + ((with - &without)? * self.scale)?)?;
        out.copy_from_slice(&guided.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

/// Stable Diffusion's process and loss: scaled-linear betas, no learned variance, so that the loss is the squared error
/// alone; samples by PNDM at guidance 7.5.
#[test]
fn it_trains_by_the_squared_error_and_samples_with_pndm() {
    let unet = unet(DType::F32);
    let process = Process::new(Schedule::ScaledLinear, 1000).unwrap();
    let loss = TrainingLoss::new(process.clone(), MseWeight::Constant);
    let (b, elements) = (2, 4 * SIDE * SIDE);
    let (x0, noise) = (normals(&[b, elements], 3, 0.5).values, normals(&[b, elements], 4, 1.0).values);
    let context = tensor(&[b, 5, 32], 1, DType::F32);
    let t = [40, 800];
    let mut x_t = vec![0.0; b * elements];
    for (i, &t) in t.iter().enumerate() {
        let image = i * elements..(i + 1) * elements;
        process.q_sample(t, &x0[image.clone()], &noise[image.clone()], &mut x_t[image]);
    }
    let x = Tensor::from_slice(&x_t, (b, 4, SIDE, SIDE), &Device::Cpu).unwrap();
    let condition = unet.condition(&Tensor::new(&[40_f32, 800.0], &Device::Cpu).unwrap(), &context).unwrap();

    let method = dmp(GateNoise::None);
    let start = initial_weights(&trainable(&method, &config()).unwrap(), &Weights::new(), 0);
    let mut learned = start.clone();
    let mut errors = Vec::new();
    for _ in 0..20 {
        let tensors = variables(&learned, DType::F32, &Device::Cpu).unwrap();
        let mixture = build(&method, &tensors).mix(&condition.t, None).unwrap();
        let output = unet.forward(&x, &condition, mixture.entering()).unwrap();
        let said: Vec<f32> = output.flatten_all().unwrap().to_vec1().unwrap();
        let mut d_output = vec![0.0; said.len()];
        let terms = loss.batch_loss(&t, &x0, &x_t, &noise, &said, Some(&mut d_output));
        assert!(terms.iter().all(|term| term.vb == 0.0));
        errors.push(terms.iter().map(|term| term.total()).sum::<f64>());
        let d_output = Tensor::from_vec(d_output, output.shape(), &Device::Cpu).unwrap();
        let total = (output * d_output).unwrap().sum_all().unwrap();
        for (name, gradient) in from_tensors(&gradients(&total, &tensors).unwrap()).unwrap() {
            let largest = gradient.values.iter().fold(f32::MIN_POSITIVE, |most, slope| most.max(slope.abs()));
            let values = &mut learned.get_mut(&name).unwrap().values;
            values.iter_mut().zip(gradient.values).for_each(|(value, slope)| *value -= 0.5 * slope / largest);
        }
    }
    assert!(errors[19] < errors[0], "{errors:?}");

    let sampler =
        Sampler::new(process.respaced(&Spacing::Leading(5)).unwrap(), Kind::Pndm, Variance::FixedLarge, false);
    let sample = |weights: Option<&Weights>, scale: f64| {
        let patch = weights.map(|weights| build(&method, &constants(weights, DType::F32, &Device::Cpu).unwrap()));
        let contexts = [context.clone(), context.zeros_like().unwrap()];
        let mut x = vec![0.0; b * elements];
        let mut denoiser = Guided { unet: &unet, patch, contexts, scale };
        sampler.sample(&mut denoiser, &mut x, elements, 0, 7, |_| Ok(())).unwrap();
        assert!(x.iter().all(|value| value.is_finite()));
        x
    };
    let plain = sample(None, 7.5);
    assert_eq!(sample(Some(&start), 7.5), plain, "a patch of zeros changes nothing");
    assert_ne!(sample(Some(&learned), 7.5), plain);
    assert_ne!(sample(None, 1.0), plain);
}
