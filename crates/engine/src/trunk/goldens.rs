//! The optimizer steps of the authors' training loop (goldens, group d), by both engines, and their total losses (c).

use candle_core::Device;
use diffusion::{MseWeight, Process, Schedule, TrainingLoss};
use goldens::{Array, Golden, assert_close, assert_within, distance, relative_distance};
use kernels::{AdamW, Group};
use manifest::dit::DitConfig;
use manifest::method::{Backbone, Balance, Dmp, ImportanceFormula, LoadFormula, Method};
use manifest::scale::{DeviceKind, Dtype, Engine, Numerics};
use models::weights::{Tensor, Weights};
use patches::balance::BalanceLosses;

use super::released::{dit, method};
use super::{Setting, TrainingTrunk, fast, training_trunk};
use crate::batch::{Batcher, TrainingBatch};
use crate::loss;
use crate::losses::Losses;
use crate::trainables::{Layout, own_slots};

const ENGINES: [Engine; 2] = [Engine::Fast, Engine::Reference];

fn weights(tensors: Vec<(String, Array)>) -> Weights {
    let tensor = |(name, array): (String, Array)| (name, Tensor { values: array.f32(), shape: array.shape });
    tensors.into_iter().map(tensor).collect()
}

/// The recorded inputs of one step; labels are dropped where the recorded draw says so.
fn batch(golden: &Golden, step: usize, dit: &DitConfig, process: &Process) -> TrainingBatch {
    let get = |name: &str| golden.get(&format!("step{step}.{name}"));
    let t = get("t").usize();
    let gate_noise = golden.find(&format!("step{step}.gate_noise")).map_or(Vec::new(), |noise| noise.f32());
    let mut batch = Batcher::empty(t.len(), dit.elements(), 0);
    batch.clean.x0 = get("x0").f32();
    batch.clean.noise = get("noise").f32();
    batch.clean.labels = get("y").usize().into_iter().map(|label| label as u32).collect();
    if let Some(draws) = golden.find(&format!("step{step}.drop_uniform")) {
        for (label, draw) in batch.clean.labels.iter_mut().zip(draws.values) {
            if draw < dit.label_dropout {
                *label = dit.classes.expect("dropped labels have classes") as u32;
            }
        }
    }
    let elements = batch.clean.x0.len() / t.len();
    for (i, &t) in t.iter().enumerate() {
        let image = i * elements..(i + 1) * elements;
        process.q_sample(t, &batch.clean.x0[image.clone()], &batch.clean.noise[image.clone()], &mut batch.x_t[image]);
    }
    batch.clean.t = t;
    batch.gate_noise = gate_noise;
    batch
}

/// One sample of a batch.
fn only(batch: &TrainingBatch, sample: usize, dit: &DitConfig) -> TrainingBatch {
    let count = batch.clean.t.len();
    let elements = batch.clean.x0.len() / count;
    let image = |values: &[f32]| values[sample * elements..(sample + 1) * elements].to_vec();
    let mut one = Batcher::empty(1, dit.elements(), 0);
    (one.clean.x0, one.clean.noise, one.x_t) = (image(&batch.clean.x0), image(&batch.clean.noise), image(&batch.x_t));
    (one.clean.labels, one.clean.t) = (vec![batch.clean.labels[sample]], vec![batch.clean.t[sample]]);
    // [L, B, N]
    let prompts = (batch.gate_noise.len() / dit.depth / count).max(1);
    let draws = batch.gate_noise.chunks_exact(prompts).skip(sample).step_by(count);
    one.gate_noise = draws.flatten().copied().collect();
    one
}

/// One run under one engine.
struct Run {
    what: String,
    golden: Golden,
    dit: DitConfig,
    process: Process,
    layout: Layout,
    values: Vec<f32>,
    gradient: Vec<f32>,
    adamw: AdamW,
    trunk: Box<dyn TrainingTrunk>,
    /// The same for a batch of one.
    single: Box<dyn TrainingTrunk>,
}

impl Run {
    fn new(name: &str, engine: Engine) -> Self {
        let golden = Golden::open(name);
        let method = method(golden.config());
        Self::of(name, golden, &method, engine)
    }

    /// The run of a file with a method that need not be the file's.
    fn of(name: &str, golden: Golden, method: &Method, engine: Engine) -> Self {
        let config = golden.config();
        let dit = dit(config);
        let backbone = if dit.classes.is_some() { "train_backbone_cond" } else { "train_backbone_uncond" };
        let backbone = weights(Golden::open(backbone).group("sd."));
        let schedule = if config["sched"] == "cosine" { Schedule::Cosine } else { Schedule::Linear };
        let process = Process::new(schedule, 1000).unwrap();
        let (layout, start) = match method {
            Method::Finetune(_) => (Layout::new(fast::full_slots(&dit).unwrap()), backbone.clone()),
            _ => {
                let layout = Layout::new(own_slots(patches::trainable(method, &dit)));
                (layout, weights(golden.group("init.")))
            }
        };
        let numerics = Numerics { engine, device: DeviceKind::Cpu, dtype: Dtype::F32 };
        let trunk = |batch| {
            let (dit, backbone, layout) = (&dit, &backbone, &layout);
            let loss = TrainingLoss::new(process.clone(), MseWeight::Constant);
            training_trunk(Setting { dit, method, backbone, layout, loss, batch }, &numerics, &Device::Cpu).unwrap()
        };
        let (trunk, single) = (trunk(config["batch"].as_u64().unwrap() as usize), trunk(1));
        let values = layout.flatten(&start).unwrap();
        let (gradient, adamw) = (vec![0.0; values.len()], AdamW::new(values.len()));
        let what = format!("{name} {engine:?}");
        Self { what, golden, dit, process, layout, values, gradient, adamw, trunk, single }
    }

    fn steps(&self) -> usize {
        self.golden.config()["steps"].as_u64().expect("a count") as usize
    }

    /// One step; returns the losses of the batch.
    fn step(&mut self, step: usize) -> Losses {
        let batch = batch(&self.golden, step, &self.dit, &self.process);
        let losses = self.trunk.gradient(&batch, &self.values, &mut self.gradient).unwrap();
        let setting = |key: &str| self.golden.config()[key].as_f64().expect("a number");
        let groups = self.layout.segments().into_iter().map(|(range, factor)| Group {
            range,
            learning_rate: setting("lr") * factor,
            weight_decay: setting("wd"),
        });
        self.adamw.step(&mut self.values, &self.gradient, &groups.collect::<Vec<_>>());
        losses
    }

    /// The losses of each sample at our own values.
    fn each_sample(&mut self, step: usize) -> Vec<Losses> {
        let batch = batch(&self.golden, step, &self.dit, &self.process);
        let samples = (0..batch.clean.t.len()).map(|sample| only(&batch, sample, &self.dit));
        samples.map(|one| self.single.gradient(&one, &self.values, &mut self.gradient).unwrap()).collect()
    }

    /// The gradient at the recorded values.
    fn gradient(&mut self, step: usize) -> &[f32] {
        let mut values = self.values.clone();
        for slot in &self.layout.slots {
            let recorded = step.checked_sub(1).map(|before| format!("step{before}.after.{}", slot.name));
            if let Some(recorded) = recorded.and_then(|name| self.golden.find(&name)) {
                values[slot.range.clone()].copy_from_slice(&recorded.f32());
            }
        }
        let batch = batch(&self.golden, step, &self.dit, &self.process);
        self.trunk.gradient(&batch, &values, &mut self.gradient).unwrap();
        &self.gradient
    }

    fn compare_gradients(&mut self, step: usize) {
        self.gradient(step);
        for slot in &self.layout.slots {
            if let Some(theirs) = self.golden.find(&format!("step{step}.grad.{}", slot.name)) {
                // The exception that the goldens' README makes.
                let of_the_gate = self.what.starts_with("train_dmp_topk") && slot.name != patches::PROMPTS;
                let tolerance = if of_the_gate && step == 4 { 1e-3 } else { 1e-5 };
                let ours = &self.gradient[slot.range.clone()];
                assert_close(&format!("{} step {step} {} gradient", self.what, slot.name), ours, &theirs, tolerance);
            }
        }
    }

    /// Asserts losses that the file has: those of each sample, then those of the batch.
    fn compare_losses(&self, step: usize, samples: &[Losses], batch: &Losses, tolerance: impl Fn(&str) -> f64) {
        for (i, name) in Losses::NAMES.into_iter().enumerate() {
            let Some(theirs) = self.golden.find(&format!("step{step}.{name}")) else { continue };
            let ours = match name {
                "mse" | "vb" => samples.iter().map(|losses| losses.values()[i]).collect(),
                _ => vec![batch.values()[i]],
            };
            let apart = distance(&ours, &theirs.values);
            assert_within(&format!("{} step {step} {name}", self.what), apart, tolerance(name));
        }
    }
}

/// Losses and values along our own trajectory; gradients at the recorded values of each step, since Adam turns the
/// rounding of a vanishing gradient into a whole step, which the next gradient would show.
fn follow(name: &str) {
    for engine in ENGINES {
        let mut run = Run::new(name, engine);
        for step in 0..run.steps() {
            run.compare_gradients(step);
            let (samples, batch) = (run.each_sample(step), run.step(step));
            run.compare_losses(step, &samples, &batch, |_| 3e-6);
            for slot in &run.layout.slots {
                if let Some(theirs) = run.golden.find(&format!("step{step}.after.{}", slot.name)) {
                    let what = format!("{} step {step} {} after", run.what, slot.name);
                    assert_close(&what, &run.values[slot.range.clone()], &theirs, 2e-6);
                }
            }
        }
    }
}

#[test]
fn train_dmp_from_zero() {
    follow("train_dmp_zero");
}

#[test]
fn train_dmp_from_random_with_label_dropout() {
    follow("train_dmp_random");
}

#[test]
fn train_dmp_top_k_with_load_loss() {
    follow("train_dmp_topk");
}

#[test]
fn train_prompt_tuning_cosine() {
    follow("train_pt");
}

#[test]
fn train_full_fine_tuning() {
    follow("train_ft");
    for engine in ENGINES {
        let mut run = Run::new("train_ft", engine);
        (0..run.steps()).for_each(|step| _ = run.step(step));
        for slot in &run.layout.slots {
            let theirs = run.golden.get(&format!("final.{}", slot.name));
            let mut ours = run.values[slot.range.clone()].to_vec();
            if slot.name.ends_with("qkv.bias") {
                // The key's bias has a gradient of exactly zero; Adam turns its rounding noise into whole steps.
                let d = run.dit.hidden;
                ours[d..2 * d].copy_from_slice(&theirs.f32()[d..2 * d]);
            }
            assert_close(&format!("train_ft {engine:?} final {}", slot.name), &ours, &theirs, 2e-5);
        }
    }
}

/// At `t = 0` the decoder's likelihood is ill-conditioned in 32 bits: 5% on what it enters. The file holds the gradients
/// and the values after the step in 64 bits too, which ours are held against.
#[test]
fn train_dmp_with_a_first_timestep() {
    for engine in ENGINES {
        let mut run = Run::new("train_dmp_t0", engine);
        let of_t0 = |loss: &str| if matches!(loss, "vb" | "total") { 0.05 } else { 3e-6 };
        run.gradient(0);
        for slot in &run.layout.slots {
            let ours = &run.gradient[slot.range.clone()];
            let twin = run.golden.get(&format!("step0.grad.{}.f64", slot.name));
            assert_close(&format!("{} {} gradient", run.what, slot.name), ours, &twin, 1e-5);
        }
        let before = run.values.clone();
        let (samples, batch) = (run.each_sample(0), run.step(0));
        run.compare_losses(0, &samples, &batch, of_t0);
        let learning_rate = run.golden.config()["lr"].as_f64().unwrap();
        for slot in &run.layout.slots {
            let name = &slot.name;
            let twin = |what: &str| run.golden.get(&format!("step0.{what}.{name}.f64")).values;
            let (gradient, after) = (twin("grad"), twin("after"));
            let moved = run.values[slot.range.clone()].iter().zip(&before[slot.range.clone()]);
            for (((ours, before), theirs), gradient) in moved.zip(after).zip(gradient) {
                let (ours, before) = (f64::from(*ours), f64::from(*before));
                // Adam's first step goes by the gradient's sign: where that is rounding, either way is right.
                let allowed =
                    if gradient.abs() > 1e-5 { 2e-6 } else { 2.0 * learning_rate * slot.learning_rate_factor };
                assert!(
                    (ours - theirs).abs() <= allowed,
                    "{} {name} after: {before} to {ours}, not {theirs}",
                    run.what
                );
            }
        }
    }
}

/// The losses of a batch with its balancing losses, per sample and in all (goldens, group c).
#[test]
fn total_losses_of_a_batch() {
    let golden = Golden::open("diffusion_losses");
    let balance = Balance {
        importance: 1.0,
        importance_formula: ImportanceFormula::OfficialCode,
        load: 1.0,
        load_formula: LoadFormula::Smooth,
    };
    let tensor = |name: &str| {
        let array = golden.get(name);
        candle_core::Tensor::from_vec(array.f32(), array.shape.as_slice(), &Device::Cpu).unwrap()
    };
    let output = golden.get("in.model_output").f32();
    for (name, schedule) in [("linear", Schedule::Linear), ("cosine", Schedule::Cosine)] {
        let process = Process::new(schedule, 1000).unwrap();
        for (label, weight) in [("constant", MseWeight::Constant), ("min_snr_5", MseWeight::MinSnr(5.0))] {
            let loss = TrainingLoss::new(process.clone(), weight);
            for (kind, load) in [("soft", "in.load_soft"), ("sparse", "in.load_hard")] {
                let theirs = |what: &str| golden.get(&format!("{name}.{label}.{kind}.{what}")).values;
                let gates = tensor(&format!("in.gates_{kind}"));
                let balance = BalanceLosses::new(&balance, &gates, Some(&tensor(load))).unwrap();
                let t = golden.get(&format!("{name}.{label}.{kind}.t")).usize();
                // The tolerance of a decoder under the cosine schedule is another.
                let tolerance = if schedule == Schedule::Cosine && t.contains(&0) { 1e-5 } else { 2e-6 };
                let mut batch = TrainingBatch {
                    clean: data::Batch::new(t.len(), golden.get("in.x0").values.len() / t.len()),
                    x_t: vec![0.0; golden.get("in.x0").values.len()],
                    gate_noise: Vec::new(),
                };
                (batch.clean.x0, batch.clean.noise) = (golden.get("in.x0").f32(), golden.get("in.noise").f32());
                let elements = batch.x_t.len() / t.len();
                let images = batch.clean.x0.chunks(elements).zip(batch.clean.noise.chunks(elements));
                for (((x0, noise), x_t), &t) in images.zip(batch.x_t.chunks_mut(elements)).zip(&t) {
                    process.q_sample(t, x0, noise, x_t);
                }
                batch.clean.t = t;
                let mut d_output = vec![0.0; output.len()];
                let mut losses = loss::losses(&loss, &batch, &output, &mut d_output);
                losses.add_balance(&balance).unwrap();
                let apart = relative_distance(&[losses.total], &theirs("total"));
                assert_within(&format!("{name}.{label}.{kind}.total"), apart, tolerance);

                let clean = &batch.clean;
                let samples = loss.batch_loss(&clean.t, &clean.x0, &batch.x_t, &clean.noise, &output, None);
                let each: Vec<f64> = samples.iter().map(|s| s.total() + losses.importance + losses.load).collect();
                let apart = relative_distance(&each, &theirs("loss"));
                assert_within(&format!("{name}.{label}.{kind}.loss"), apart, tolerance);
            }
        }
    }
}

/// What the tolerances are for: a run without its load loss is told from the recorded one.
#[test]
fn a_dropped_load_loss_is_seen() {
    for engine in ENGINES {
        let golden = Golden::open("train_dmp_topk");
        let Method::Dmp(mut dmp) = method(golden.config()) else { panic!("a run with a gate") };
        dmp.balance.load = 0.0;
        let mut run = Run::of("train_dmp_topk", golden, &Method::Dmp(dmp), engine);
        let gradient = run.gradient(0).to_vec();
        for name in ["gate.weight", "gate.bias", "w_noise"] {
            let slot = run.layout.slots.iter().find(|slot| slot.name == name).unwrap();
            let ours: Vec<f64> = gradient[slot.range.clone()].iter().map(|&g| f64::from(g)).collect();
            let apart = distance(&ours, &run.golden.get(&format!("step0.grad.{name}")).values);
            assert!(apart > 1e-3, "{} {name}: the gradient is {apart:.1e} away only", run.what);
        }
        let total = run.step(0).total;
        let apart = distance(&[total], &run.golden.get("step0.total").values);
        assert!(apart > 1e-3, "{}: the total is {apart:.1e} away only", run.what);
    }
}

/// A backbone that learns together with its patch: both engines agree on every gradient, and the patch's own are those of
/// the authors' code, where the backbone is frozen.
#[test]
fn a_backbone_learns_together_with_its_patch() {
    let golden = Golden::open("train_dmp_random");
    let config = golden.config();
    let (dit, Method::Dmp(released)) = (dit(config), method(config)) else { panic!("the run is DMP") };
    let method = Method::Dmp(Dmp { backbone: Backbone::FromScratch, ..released });
    let mut weights = weights(Golden::open("train_backbone_cond").group("sd."));
    weights.extend(self::weights(golden.group("init.")));
    let own = own_slots(patches::trainable(&method, &dit));
    let layout = Layout::new(fast::full_slots(&dit).unwrap().into_iter().chain(own));
    let process = Process::new(Schedule::Linear, 1000).unwrap();
    let values = layout.flatten(&weights).unwrap();
    let of = |engine: Engine| {
        let setting = Setting {
            dit: &dit,
            method: &method,
            backbone: &Weights::new(),
            layout: &layout,
            loss: TrainingLoss::new(process.clone(), MseWeight::Constant),
            batch: config["batch"].as_u64().unwrap() as usize,
        };
        let numerics = Numerics { engine, device: DeviceKind::Cpu, dtype: Dtype::F32 };
        let mut trunk = training_trunk(setting, &numerics, &Device::Cpu).unwrap();
        let mut gradient = vec![0.0; values.len()];
        let losses = trunk.gradient(&batch(&golden, 0, &dit, &process), &values, &mut gradient).unwrap();
        (losses.total, gradient)
    };
    let ((fast_loss, fast), (reference_loss, reference)) = (of(Engine::Fast), of(Engine::Reference));
    assert!(distance(&[fast_loss], &[reference_loss]) <= 3e-6, "{fast_loss} {reference_loss}");
    let double = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    for slot in layout.slots.iter().filter(|slot| slot.learning_rate_factor > 0.0) {
        let (ours, theirs) = (&fast[slot.range.clone()], &reference[slot.range.clone()]);
        let apart = distance(&double(ours), &double(theirs));
        assert!(apart <= 1e-5, "{}: {apart:.1e} apart", slot.name);
        if let Some(recorded) = golden.find(&format!("step0.grad.{}", slot.name)) {
            assert_close(&slot.name, ours, &recorded, 1e-5);
        }
        assert!(ours.iter().any(|&slope| slope != 0.0), "{} learns", slot.name);
    }
}
