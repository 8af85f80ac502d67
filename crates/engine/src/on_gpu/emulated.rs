//! Stages on the emulated GPU beside the same on the processor.

use candle_core::{DType, Tensor};
use data::Images;
use diffusion::Sampler;
use gpu::Size;
use gpu::emulator::Emulator;
use manifest::autoencoder::VaeConfig;
use manifest::denoiser::Denoiser;
use manifest::dit::DitConfig;
use manifest::gate::{
    Architecture, BlockAwareness, Gate, GateInput, GateNoise, KeptWeights, Selection, SelectionGradient, Soft, TopK,
};
use manifest::method::{
    Add, Backbone, Balance, Depth, Dmp, Finetune, ImportanceFormula, Init, LoadFormula, Method, Normal, Position,
    Prepend, PromptTuning, Prompts,
};
use manifest::scale::{
    DeviceKind, Diffusion, Dtype, Engine, GuidanceChannels, Numerics, Optimisation, Sampler as SamplerConfig,
    SamplerKind, Schedule,
};
use manifest::stage;
use models::inception::{self, Inception};
use models::vae::Vae;
use models::weights::{Weights, constants};
use random::{Draws, Stream};

use crate::bench::random_weights as weights;
use crate::checkpoint::Checkpoint;
use crate::denoising::Task;
use crate::losses::Losses;
use crate::network::Network;
use crate::on_gpu::{DECODED, MachineDecoder, MachineInception};
use crate::process;
use crate::sampling::{initial_noise, machine_sampler};
use crate::training::{Course, Objective, descend};

const BATCH: usize = 4;
const ITERATIONS: usize = 6;

fn dit(classes: Option<usize>) -> DitConfig {
    DitConfig {
        image_size: 8,
        channels: 1,
        patch: 2,
        hidden: 32,
        depth: 2,
        heads: 2,
        classes,
        text_width: None,
        label_dropout: if classes.is_some() { 0.3 } else { 0.0 },
        learn_sigma: true,
    }
}

fn prompts() -> Prompts {
    Prompts { position: Position::Add(Add {}), depth: Depth::All, init: Init::Normal(Normal { std: 0.1 }) }
}

/// The paper's gate, or the released code's.
fn dmp(released: bool) -> Method {
    Method::Dmp(Dmp {
        backbone: Backbone::Pretrained,
        prompts: prompts(),
        gate: Gate {
            architecture: Architecture::Linear,
            selection: Selection::Soft(Soft {}),
            prompts_per_block: BlockAwareness::Distinct,
            input: if released { GateInput::AsReleased } else { GateInput::T },
            noise: if released { GateNoise::Learned } else { GateNoise::None },
            learning_rate_factor: if released { 10.0 } else { 1.0 },
        },
        balance: Balance {
            importance: 1.0,
            importance_formula: if released { ImportanceFormula::OfficialCode } else { ImportanceFormula::Paper },
            load: 1.0,
            load_formula: if released { LoadFormula::Smooth } else { LoadFormula::Count },
        },
    })
}

fn images(classes: usize) -> Images {
    let draws = Draws::new(1, Stream::Factors, 0);
    let pixels = (0..10 * 64).map(|i| draws.bits(i) as u8).collect();
    Images { labels: Some((0..10).map(|i| i % classes as u32).collect()), ..Images::new(1, 8, pixels) }
}

fn backbone(dit: &DitConfig) -> Weights {
    weights(models::dit::named_shapes(dit))
}

/// Losses and what was learned on the processor, and on a machine that is asked for so many steps at a time.
fn both(method: &Method, classes: Option<usize>, half_life: f64, micro_batch: Option<usize>) {
    let dit = dit(classes);
    let optimisation = Optimisation {
        iterations: ITERATIONS,
        batch: BATCH,
        learning_rate: 1e-3,
        final_learning_rate: 1e-4,
        warmup_iterations: 2,
        weight_decay: 0.01,
        horizontal_flip: true,
        micro_batch: micro_batch.map(|part| part.try_into().unwrap()),
    };
    let diffusion = Diffusion { schedule: Schedule::Cosine, timesteps: 100 };
    let numerics = Numerics { engine: Engine::Fast, device: DeviceKind::Cuda, dtype: Dtype::F32 };
    let denoiser = Denoiser::Dit(dit.clone());
    let task = Task {
        denoiser: &denoiser,
        method,
        diffusion: &diffusion,
        optimisation: &optimisation,
        ema_halflife_iterations: half_life,
        seed: 3,
        numerics: &numerics,
    };
    let (images, backbone) = (images(classes.unwrap_or(3)), backbone(&dit));
    let (layout, initial) = task.start(&backbone).unwrap();
    let initial = layout.flatten(&initial).unwrap();

    let mut objective = task.objective(&dit, &images, None, &backbone, &layout, &candle_core::Device::Cpu).unwrap();
    let (mut values, mut gradient) = (initial.clone(), vec![0.0; initial.len()]);
    let mut adamw = kernels::AdamW::new(values.len());
    let expected: Vec<Losses> = (0..ITERATIONS)
        .map(|i| {
            let losses = objective.gradient(i, &values, &mut gradient).unwrap();
            descend(&mut adamw, &optimisation, i, &layout.segments(), &mut values, &gradient);
            losses
        })
        .collect();

    let machine = Emulator::new(0);
    let run = |pieces: &[usize]| {
        let mut state = Checkpoint::start(initial.clone(), half_life > 0.0);
        let mut losses = Vec::new();
        for &end in pieces {
            // As a killed run goes on: from what the checkpoint holds alone.
            let mut course = task.course(&machine, &dit, &images, &backbone, &layout, &state).unwrap();
            while state.iteration < end {
                let advance = course.advance(state.iteration, end).unwrap();
                state.iteration += advance.losses.len();
                losses.extend(advance.losses);
            }
            course.keep(&mut state).unwrap();
        }
        (losses, state)
    };
    let (losses, state) = run(&[ITERATIONS]);
    for (i, (ours, want)) in losses.iter().zip(&expected).enumerate() {
        for ((name, ours), want) in Losses::NAMES.iter().zip(ours.values()).zip(want.values()) {
            let apart = (ours - want).abs() / want.abs().max(1e-3);
            assert!(apart < 1e-5, "{method:?}: {name} of iteration {i}: {ours}, not {want}");
        }
    }
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let apart = state.values.iter().zip(&values).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    // AdamW's first steps go either way where a gradient is next to nothing
    assert!(apart < 2e-2 * largest, "{method:?}: values are {apart} apart");
    let (again, resumed) = run(&[1, 4, ITERATIONS]);
    assert_eq!((again, resumed.values), (losses, state.values), "{method:?}: resumed");
    assert_eq!((resumed.second_moment, resumed.average), (state.second_moment, state.average), "{method:?}: resumed");
}

/// The same method with another gate.
fn with_gate(mut method: Method, change: impl FnOnce(&mut Gate)) -> Method {
    let Method::Dmp(dmp) = &mut method else { unreachable!("it has a gate") };
    change(&mut dmp.gate);
    method
}

/// The same method with prompts in front of the tokens.
fn in_front(mut method: Method) -> Method {
    let (Method::Dmp(Dmp { prompts, .. }) | Method::PromptTuning(PromptTuning { prompts })) = &mut method else {
        unreachable!("it has prompts")
    };
    prompts.position = Position::Prepend(Prepend { per_256_tokens: 50 });
    method
}

/// The same method with weight 1 for the highest prompts.
fn hard(method: Method) -> Method {
    let (weights, gradient) = (KeptWeights::One, SelectionGradient::StraightThrough);
    with_gate(method, |gate| gate.selection = Selection::TopK(TopK { keep: 0.75, weights, gradient }))
}

/// The same method with a gate of attention.
fn attention(method: Method, architecture: Architecture, prompts_per_block: BlockAwareness) -> Method {
    with_gate(method, |gate| (gate.architecture, gate.prompts_per_block) = (architecture, prompts_per_block))
}

#[test]
fn training_is_the_processor_s_and_goes_on_from_a_checkpoint() {
    both(&hard(dmp(false)), None, 0.0, None);
    // the smooth load loss
    both(&hard(dmp(true)), Some(3), 0.0, None);
    both(&dmp(false), None, 0.0, None);
    both(&dmp(false), None, 0.0, Some(2));
    both(&dmp(true), Some(3), 0.0, None);
    both(&Method::PromptTuning(PromptTuning { prompts: prompts() }), None, 0.0, None);
    both(&in_front(dmp(false)), None, 0.0, Some(2));
    both(&in_front(dmp(true)), Some(3), 0.0, None);
    both(&in_front(Method::PromptTuning(PromptTuning { prompts: prompts() })), None, 0.0, None);
    both(&Method::Finetune(Finetune::default()), Some(3), 2.0, Some(1));
}

#[test]
fn gates_of_attention_are_the_processor_s() {
    for architecture in [Architecture::AttentionLiteral, Architecture::AttentionOverPrompts] {
        both(&attention(dmp(false), architecture, BlockAwareness::Distinct), None, 0.0, Some(2));
        both(&attention(hard(dmp(true)), architecture, BlockAwareness::Uniform), Some(3), 0.0, None);
        both(&in_front(attention(dmp(false), architecture, BlockAwareness::Uniform)), None, 0.0, None);
    }
}

#[test]
fn samples_are_the_processor_s() {
    let (literal, over_prompts) = (Architecture::AttentionLiteral, Architecture::AttentionOverPrompts);
    for (kind, method, classes, guidance) in [
        (SamplerKind::Ddpm, dmp(false), None, 1.0),
        (SamplerKind::Ddim, dmp(true), Some(3), 1.0),
        (SamplerKind::Ddpm, in_front(dmp(true)), Some(3), 1.0),
        (SamplerKind::Ddpm, attention(dmp(false), literal, BlockAwareness::Distinct), None, 1.0),
        (SamplerKind::Ddpm, attention(dmp(true), over_prompts, BlockAwareness::Uniform), Some(3), 1.0),
        (SamplerKind::Ddpm, dmp(true), Some(3), 1.5),
        (SamplerKind::Pndm, dmp(true), Some(3), 7.5),
    ] {
        // PNDM knows no variance: its network learns none here
        let dit = DitConfig { channels: 4, learn_sigma: kind != SamplerKind::Pndm, ..dit(classes) };
        let guidance_channels = GuidanceChannels::FirstThree;
        let settings = SamplerConfig { kind, steps: 5, clip_x0: true, guidance, guidance_channels };
        let diffusion = Diffusion { schedule: Schedule::Cosine, timesteps: 100 };
        let sampler: Sampler = process::sampler(&diffusion, &settings, dit.learn_sigma).unwrap();
        let own = patches::trainable(&method, &dit).into_iter().map(|tensor| (tensor.name, tensor.shape));
        let (backbone, trained) = (backbone(&dit), weights(own.collect()));
        let stage = stage::Sample {
            denoiser: Denoiser::Dit(dit.clone()),
            method: method.clone(),
            diffusion,
            latents: None,
            sampler: settings.clone(),
            count: 3,
            seed: 8,
            prompt_noise: 0.0,
            class: None,
            numerics: Numerics { engine: Engine::Fast, device: DeviceKind::Cuda, dtype: Dtype::F32 },
        };
        let machine = Emulator::new(0);
        let mut gpu_sampler = machine_sampler(&machine, &stage, &dit, (&backbone, &trained), &sampler).unwrap();
        let cpu = candle_core::Device::Cpu;
        let mut network = Network::new(&dit, &method, &settings, (&backbone, &trained), Engine::Fast, &cpu).unwrap();
        for (first, labels) in [(0, vec![0, 2, 1]), (3, vec![1, 0])] {
            let labels = if classes.is_some() { labels } else { vec![0; labels.len()] };
            let x = initial_noise(&stage, first, labels.len());
            network.set_labels(labels.clone());
            let mut want = vec![0.0; x.len()];
            sampler.sample(&mut network, &mut want, dit.elements(), first as u64, stage.seed, |_| Ok(())).unwrap();
            let ours = gpu_sampler.draw(first, x, labels, || false).unwrap();
            let apart = ours.iter().zip(&want).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(ours.len() == want.len() && apart < 1e-4, "{kind:?}: {apart}");
        }
    }
}

/// Stable Diffusion's autoencoder with a sixteenth of its width.
#[test]
fn decoded_images_are_the_processor_s() {
    let shape = VaeConfig { image_channels: 3, latent_channels: 4, widths: vec![8, 16, 32], depth: 1, groups: 4 };
    let formula = models::vae::formula_weights(&shape, models::formula::FORMULA_SEED).unwrap();
    let vae = Vae::new(&shape, &constants(&formula, DType::F32, &candle_core::Device::Cpu).unwrap()).unwrap();
    let (side, count) = (4, DECODED + 2);
    let mut latents = vec![0.0; count * 4 * side * side];
    Draws::new(2, Stream::Factors, 0).fill_normal(0, &mut latents);
    let tensor = Tensor::from_slice(&latents, (count, 4, side, side), &candle_core::Device::Cpu).unwrap();
    let want: Vec<f32> = vae.decode(&tensor).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    // bf16 keeps 8 bits: each of some thirty layers in a row rounds by up to 0.2%, and roundings add up like noise
    for (dtype, bound) in [(Dtype::F32, 1e-5), (Dtype::Bf16, 2e-2)] {
        let mut decoder = MachineDecoder::new(Emulator::new(0), &vae, &shape, side, dtype).unwrap();
        let ours = decoder.decode(&latents).unwrap();
        let apart = gpu::check::distance(&ours, &want);
        assert!(apart < bound, "{dtype:?}: {apart}");
    }
}

/// Of images so small that Inception still sees them, as they are.
#[test]
fn inception_s_features_are_the_processor_s() {
    let formula = inception::formula_weights(models::formula::FORMULA_SEED).unwrap();
    let network = Inception::new(&constants(&formula, DType::F32, &candle_core::Device::Cpu).unwrap()).unwrap();
    let (side, count) = (75, 3);
    let mut images = vec![0.0; count * 3 * side * side];
    Draws::new(4, Stream::Factors, 0).fill_normal(0, &mut images);
    let tensor = Tensor::from_slice(&images, (count, 3, side, side), &candle_core::Device::Cpu).unwrap();
    let want = network.features(&tensor).unwrap();
    let size = Size { height: side, width: side, channels: 3 };
    let mut ours = MachineInception::new(Emulator::new(0), &network, size, side, 2).unwrap();
    let (pooled, spatial) = ours.see(&images).unwrap();
    for (what, ours, want) in [("pooled", pooled, want.pool2048), ("spatial", spatial, want.spatial)] {
        let want: Vec<f32> = want.flatten_all().unwrap().to_vec1().unwrap();
        let apart = gpu::check::distance(&ours, &want);
        assert!(apart < 1e-5, "{what}: {apart}");
    }
}

#[test]
fn what_is_not_done_is_refused_with_the_next_command() {
    let Method::Dmp(mut dmp) = dmp(false) else { unreachable!("it is one") };
    dmp.backbone = Backbone::FromScratch;
    let error = super::method::training(&Method::Dmp(dmp), &dit(None)).unwrap_err().to_string();
    assert!(error.contains("a backbone that learns") && error.contains("--engine reference"), "{error}");
}
