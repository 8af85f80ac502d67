//! Schedules, steps, losses and likelihoods against the authors' code (goldens, group c): relative to the largest value
//! of a tensor, as their README gives the tolerances.

use diffusion::{
    History, Kind, MseWeight, Process, Sampler, Schedule, Spacing, Step, TrainingLoss, Variance, likelihood,
};
use goldens::{Array, Golden, assert_close, assert_relatively_close, assert_within, relative_distance};

const SCHEDULES: [(&str, Schedule); 2] = [("linear", Schedule::Linear), ("cosine", Schedule::Cosine)];

/// The process behind a label such as `1000`, `ddim50` or `10_15_20`.
fn process(schedule: Schedule, label: &str) -> Process {
    let whole = Process::new(schedule, 1000).unwrap();
    if label == "1000" { whole } else { whole.respaced(&label.replace('_', ",").parse().unwrap()).unwrap() }
}

/// `max |ours / theirs - 1|`: each entry by itself.
fn elementwise(ours: &[f64], theirs: &[f64]) -> f64 {
    let entry = |(a, b): (&f64, &f64)| relative_distance(std::slice::from_ref(a), std::slice::from_ref(b));
    ours.iter().zip(theirs).map(entry).fold(0.0, f64::max)
}

/// Sample `i` of a batch.
fn row(values: &[f32], batch: usize, i: usize) -> &[f32] {
    let n = values.len() / batch;
    &values[i * n..(i + 1) * n]
}

/// Applies `f` to every sample and its timestep, one after the other.
fn rows(t: &[usize], f: impl FnMut((usize, &usize)) -> Vec<f32>) -> Vec<f32> {
    t.iter().enumerate().flat_map(f).collect()
}

#[test]
fn goldens_schedules() {
    type Column = (&'static str, fn(&Step) -> f64, f64);
    const COLUMNS: [Column; 10] = [
        ("timestep_map", |s| s.timestep as f64, 0.0),
        ("betas", |s| s.beta, 1e-12),
        ("alphas_cumprod", |s| s.alpha_bar, 1e-12),
        ("alphas_cumprod_prev", |s| s.alpha_bar_prev, 1e-12),
        ("alphas_cumprod_next", |s| s.alpha_bar_next, 1e-12),
        ("sqrt_recip_alphas_cumprod", |s| s.sqrt_recip_alpha_bar, 1e-12),
        ("sqrt_recipm1_alphas_cumprod", |s| s.sqrt_recipm1_alpha_bar, 1e-12),
        ("posterior_variance", |s| s.posterior_variance, 1e-10),
        ("posterior_log_variance_clipped", |s| s.posterior_log_variance, 1e-10),
        ("posterior_mean_coef1", |s| s.posterior_mean_x0, 1e-10),
    ];
    let golden = Golden::open("diffusion_schedules");
    let mut checked = 0;
    for (name, schedule) in SCHEDULES {
        for (tensor, map) in golden.group(&format!("{name}.")) {
            let Some(label) = tensor.strip_suffix(".timestep_map") else { continue };
            let process = process(schedule, label);
            assert_eq!(process.steps().iter().map(|s| s.timestep).collect::<Vec<_>>(), map.usize());
            let more: [Column; 1] = [("posterior_mean_coef2", |s| s.posterior_mean_xt, 1e-10)];
            for (column, value, tolerance) in COLUMNS.iter().chain(&more) {
                let what = format!("{name}.{label}.{column}");
                let ours: Vec<f64> = process.steps().iter().map(value).collect();
                let theirs = golden.get(&what);
                assert_within(&what, relative_distance(&ours, &theirs.values), *tolerance);
                // Also of the smallest entries, which a last bit of another library's cosine moves by 3e-12.
                assert_within(&format!("{what}, each entry"), elementwise(&ours, &theirs.values), tolerance.max(1e-11));
                checked += 1;
            }
        }
    }
    assert!(checked >= 2 * 11, "{checked} tables");
}

#[test]
fn goldens_space_timesteps() {
    let golden = Golden::open("diffusion_schedules");
    let lists = golden.group("space_timesteps.");
    assert!(!lists.is_empty());
    for (label, kept) in lists {
        let (timesteps, spec) = label.split_once("__").unwrap_or(("1000", &label));
        let spacing: Spacing = spec.replace('_', ",").parse().unwrap();
        assert_eq!(spacing.timesteps(timesteps.parse().unwrap()).unwrap(), kept.usize(), "{label}");
    }
}

#[test]
fn goldens_steps() {
    let golden = Golden::open("diffusion_steps");
    let input = |name: &str| golden.get(&format!("in.{name}")).f32();
    let (x0, noise, output, sample_noise) = (input("x0"), input("noise"), input("model_output"), input("sample_noise"));
    for (name, schedule) in SCHEDULES {
        for label in ["1000", "250", "ddim50"] {
            let process = process(schedule, label);
            let prefix = format!("{name}.{label}.");
            let theirs = |what: &str| golden.get(&format!("{prefix}{what}"));
            let check = |what: &str, ours: &[f32], tolerance| {
                assert_relatively_close(&format!("{prefix}{what}"), ours, &theirs(what), tolerance)
            };
            let t = theirs("t").usize();
            let b = t.len();
            let told: Vec<usize> = t.iter().map(|&t| process.step(t).timestep).collect();
            assert_eq!(told, theirs("model_saw_t").usize());

            check("q_sample", &noised(&process, &t, &x0, &noise), 1e-5);
            let x_t = theirs("q_sample").f32();
            // Mean and spread of `q(x_t | x_0)`: what remains without noise, and without an image.
            let zeros = vec![0.0; x0.len()];
            check("q_mean", &noised(&process, &t, &x0, &zeros), 1e-5);
            let spread = noised(&process, &t, &zeros, &vec![1.0; x0.len()]);
            check("q_variance", &spread.iter().map(|s| s * s).collect::<Vec<_>>(), 1e-5);
            check("q_log_variance", &spread.iter().map(|s| 2.0 * s.ln()).collect::<Vec<_>>(), 1e-5);
            let everywhere =
                |value: fn(&Step) -> f64| rows(&t, |(_, &t)| vec![value(process.step(t)) as f32; x0.len() / b]);
            check("posterior_variance", &everywhere(|s| s.posterior_variance), 1e-5);
            check("posterior_logvar", &everywhere(|s| s.posterior_log_variance), 1e-5);
            let (from_x0, from_xt) = (everywhere(|s| s.posterior_mean_x0), everywhere(|s| s.posterior_mean_xt));
            let mean = |i: usize| from_x0[i] * x0[i] + from_xt[i] * x_t[i];
            check("posterior_mean", &(0..x0.len()).map(mean).collect::<Vec<_>>(), 1e-5);

            for (clip, digit) in [(false, 0), (true, 1)] {
                let sampler = |kind| Sampler::new(process.clone(), kind, Variance::LearnedRange, clip);
                let ddpm = sampler(Kind::Ddpm);
                type Part = fn(diffusion::Prediction) -> Vec<f32>;
                let parts: [(&str, Part); 4] = [
                    ("mean", |p| p.mean),
                    ("log_variance", |p| p.log_variance),
                    ("variance", |p| p.log_variance.iter().map(|v| v.exp()).collect()),
                    ("pred_xstart", |p| p.x0),
                ];
                for (what, part) in parts {
                    let ours = rows(&t, |(i, &t)| part(ddpm.predict(t, row(&x_t, b, i), row(&output, b, i))));
                    check(&format!("clip{digit}.{what}"), &ours, 1e-5);
                }
                let step = |sampler: Sampler| {
                    rows(&t, |(i, &t)| {
                        let mut x = row(&x_t, b, i).to_vec();
                        sampler.step(t, &mut x, row(&output, b, i), row(&sample_noise, b, i));
                        x
                    })
                };
                check(&format!("clip{digit}.p_sample"), &step(ddpm.clone()), 1e-5);
                for eta in [0.0, 0.5, 1.0] {
                    let ours = step(sampler(Kind::Ddim { eta }));
                    // Cosine alphas near T are tiny, and divided by.
                    let tolerance = if schedule == Schedule::Cosine { 1e-4 } else { 1e-5 };
                    check(&format!("clip{digit}.ddim_eta{eta:.1}"), &ours, tolerance);
                }
            }
            let sampler = Sampler::new(process.clone(), Kind::Ddim { eta: 0.0 }, Variance::LearnedRange, false);
            let reversed = rows(&t, |(i, &t)| {
                let mut x = row(&x_t, b, i).to_vec();
                sampler.ddim_reverse(t, &mut x, row(&output, b, i));
                x
            });
            check("ddim_reverse", &reversed, 1e-4);

            let loss = TrainingLoss::new(process.clone(), MseWeight::Constant);
            let losses = loss.batch_loss(&t, &x0, &x_t, &noise, &output, None);
            check("vb_bpd", &losses.iter().map(|l| l.vb as f32).collect::<Vec<_>>(), 1e-5);
            // A difference of terms near 1, recorded in 32 bits: right to a rounding of 1.
            let prior: Vec<f32> = (0..b).map(|i| process.prior_bpd(row(&x0, b, i)) as f32).collect();
            assert_close(&format!("{prefix}prior_bpd"), &prior, &theirs("prior_bpd"), 1e-7);
        }
    }
}

#[test]
fn goldens_losses() {
    let golden = Golden::open("diffusion_losses");
    let input = |name: &str| golden.get(&format!("in.{name}")).f32();
    let (x0, noise, output) = (input("x0"), input("noise"), input("model_output"));
    let mut checked = 0;
    for (name, schedule) in SCHEDULES {
        let process = Process::new(schedule, 1000).unwrap();
        for (label, weight) in [("constant", MseWeight::Constant), ("min_snr_5", MseWeight::MinSnr(5.0))] {
            let loss = TrainingLoss::new(process.clone(), weight);
            for kind in ["soft", "sparse"] {
                let prefix = format!("{name}.{label}.{kind}.");
                let theirs = |what: &str| golden.get(&format!("{prefix}{what}"));
                let t = theirs("t").usize();
                let x_t = noised(&process, &t, &x0, &noise);
                let mut grad = vec![0.0; output.len()];
                let losses = loss.batch_loss(&t, &x0, &x_t, &noise, &output, Some(&mut grad));
                let mse: Vec<f32> = losses.iter().map(|l| l.mse as f32).collect();
                let vb: Vec<f32> = losses.iter().map(|l| l.vb as f32).collect();
                assert_relatively_close(&format!("{prefix}mse"), &mse, &theirs("mse"), 2e-6);
                let tolerance = if schedule == Schedule::Cosine && t.contains(&0) { 1e-5 } else { 2e-6 };
                assert_relatively_close(&format!("{prefix}vb"), &vb, &theirs("vb"), tolerance);
                // In 64 bits: the gradient in 32 is recorded too, and lies up to 3.0e-6 from it.
                let twin = "grad.model_output.f64";
                assert_relatively_close(&format!("{prefix}{twin}"), &grad, &theirs(twin), 2e-6);
                checked += 1;
            }
        }
        for (label, weights) in golden.group(&format!("weights.{name}.min_snr_")) {
            let weight = MseWeight::MinSnr(label.parse().unwrap());
            let ours: Vec<f32> = process.steps().iter().map(|s| weight.at(s) as f32).collect();
            assert_relatively_close(&format!("{name} min_snr_{label}"), &ours, &weights, 2e-6);
        }
    }
    assert_eq!(checked, 8);

    let linear = Process::new(Schedule::Linear, 1000).unwrap();
    let loss = TrainingLoss::new(linear.clone(), MseWeight::Constant);
    let t = golden.get("linear.constant.soft.t").usize();
    let losses = loss.batch_loss(&t, &x0, &noised(&linear, &t, &x0, &noise), &noise, &output, None);
    let total: Vec<f32> = losses.iter().map(|l| l.total() as f32).collect();
    assert_relatively_close("linear.mse_only.loss", &total, &golden.get("linear.mse_only.loss"), 2e-6);
    let (x0, noise, output) = (row(&x0, t.len(), 0), row(&noise, t.len(), 0), row(&output, t.len(), 0));
    let one = &loss.batch_loss(&[500], x0, &noised(&linear, &[500], x0, noise), noise, output, None)[0];
    assert_relatively_close("batch1.mse", &[one.mse as f32], &golden.get("batch1.mse"), 2e-6);
    assert_relatively_close("batch1.vb", &[one.vb as f32], &golden.get("batch1.vb"), 2e-6);
}

fn noised(process: &Process, t: &[usize], x0: &[f32], noise: &[f32]) -> Vec<f32> {
    rows(t, |(i, &at)| {
        let mut x_t = vec![0.0; x0.len() / t.len()];
        process.q_sample(at, row(x0, t.len(), i), row(noise, t.len(), i), &mut x_t);
        x_t
    })
}

/// In `f32`: the reference's tails are its rounding.
#[test]
fn goldens_likelihood() {
    let golden = Golden::open("diffusion_likelihood");
    let input = |name: &str| golden.get(name).f32();
    let (x, mean, log_scale) = (input("x"), input("mean"), input("log_scale"));
    let (mean2, logvar2) = (input("mean2"), input("logvar2"));
    let each = |f: &dyn Fn(usize) -> f32| (0..x.len()).map(f).collect::<Vec<_>>();
    let log_likelihood = each(&|i| likelihood::discretised_gaussian(x[i], mean[i], log_scale[i]).0);
    assert_close("log_likelihood", &log_likelihood, &golden.get("log_likelihood"), 1e-4);
    let kl = each(&|i| likelihood::normal_kl(mean[i], log_scale[i], mean2[i], logvar2[i]));
    assert_close("kl", &kl, &golden.get("kl(mean,log_scale||mean2,logvar2)"), 1e-4);
}

/// PNDM against Stable Diffusion's scheduler (goldens, group h).
#[test]
fn goldens_pndm() {
    let golden = Golden::open("pndm");
    let whole = Process::new(Schedule::ScaledLinear, 1000).unwrap();
    let alpha_bar: Vec<f32> = whole.steps().iter().map(|s| s.alpha_bar as f32).collect();
    assert_close("alphas_cumprod", &alpha_bar, &golden.get("alphas_cumprod"), 1e-6);
    let start = golden.get("in.x").f32();
    let runs = golden.names().into_iter().filter_map(|name| name.strip_suffix(".timesteps").map(str::to_owned));
    let mut checked = 0;
    for run in runs {
        let steps = run.strip_prefix("steps").unwrap().parse().unwrap();
        let process = whole.respaced(&Spacing::Leading(steps)).unwrap();
        let sampler = Sampler::new(process, Kind::Pndm, Variance::FixedLarge, false);
        let told: Vec<usize> = (0..sampler.calls()).map(|call| sampler.timestep(call)).collect();
        assert_eq!(told, golden.get(&format!("{run}.timesteps")).usize());
        type Model = fn(f32, f32) -> f32;
        let models: [(&str, Model); 2] = [("linear", |x, _| 0.1 * x), ("sin", |x, t| x.sin() + t / 1000.0)];
        for (label, model) in models {
            let theirs = golden.get(&format!("{run}.{label}.trajectory"));
            // Of a longer run the file holds the first corner of the states.
            let kept = theirs.values.len() / told.len();
            let mut x = start.clone();
            let mut history = History::default();
            for (call, states) in theirs.values.chunks(kept).enumerate() {
                let eps: Vec<f32> = x.iter().map(|&x| model(x, sampler.timestep(call) as f32)).collect();
                sampler.advance(call, &mut x, &eps, &mut history, 0, 0);
                let state = Array { shape: vec![kept], values: states.to_vec() };
                assert_close(&format!("{run}.{label} call {call}"), &x[..kept], &state, 2e-6);
            }
            assert_close(&format!("{run}.{label}.final"), &x, &golden.get(&format!("{run}.{label}.final")), 2e-6);
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked} runs");
}
