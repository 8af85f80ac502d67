//! Properties that goldens cannot show: gradients against finite differences, the same bits for every number of
//! threads and every batch.

use kernels::{
    Condition, Contribution, ContributionGradient, Inputs, Learn, OutsideGradients, Parameters, Plan, Shape, Workspace,
};

const SHAPE: Shape =
    Shape { image_size: 8, channels: 3, patch: 2, hidden: 48, depth: 3, heads: 3, label_rows: 5, out_channels: 6 };

fn numbers(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let draws = random::Draws::new(seed, random::Stream::Factors, 0);
    (0..count).map(|i| scale * draws.normal(i as u64)).collect()
}

/// One problem: weights, a batch, and prompts for every block.
struct Problem {
    parameters: Parameters,
    condition: Condition,
    rows: Vec<u32>,
    images: Vec<f32>,
    d_output: Vec<f32>,
    weights: Vec<f32>,
    prompts: Vec<f32>,
    vectors: Vec<f32>,
    batch: usize,
}

const FRONT: usize = 5;

impl Problem {
    fn new(batch: usize) -> Self {
        let (t, d) = (SHAPE.tokens(), SHAPE.hidden);
        let mut parameters = Parameters::zeros(SHAPE).unwrap();
        let values = numbers(parameters.values().len(), 1, 0.12);
        parameters.values_mut().copy_from_slice(&values);
        let mut condition = Condition::new(SHAPE, batch);
        let times: Vec<f32> = (0..batch).map(|i| (i * 137 % 1000) as f32).collect();
        let labels: Vec<u32> = (0..batch).map(|i| (i % SHAPE.label_rows) as u32).collect();
        condition.compute(&parameters, &times, &labels);
        Self {
            parameters,
            condition,
            rows: (0..batch as u32).collect(),
            images: numbers(batch * SHAPE.image(), 2, 1.0),
            d_output: numbers(batch * SHAPE.output(), 3, 1.0),
            // away from 0: LayerNorm bends sharply where a prepended prompt's weight changes sign
            weights: numbers(batch * t, 4, 0.5).iter().map(|w| 0.4 + w.abs()).collect(),
            prompts: numbers(t * d, 5, 0.5),
            vectors: numbers(batch * d, 6, 0.5),
            batch,
        }
    }

    fn weighted(&self) -> Contribution<'_> {
        Contribution::Weighted { weights: &self.weights, prompts: &self.prompts }
    }

    fn prepend(&self) -> Contribution<'_> {
        Contribution::Prepend {
            weights: &self.weights[..self.batch * FRONT],
            prompts: &self.prompts[..FRONT * SHAPE.hidden],
        }
    }

    fn inputs<'a>(&'a self, contributions: &'a [Contribution<'a>]) -> Inputs<'a> {
        Inputs { parameters: &self.parameters, condition: &self.condition, rows: &self.rows, contributions }
    }

    fn workspace(&self, learn: Learn) -> Workspace {
        Workspace::new(Plan { shape: SHAPE, batch: self.batch, learn, prepended: FRONT, image_gradient: true })
    }

    fn output(&self, contributions: &[Contribution]) -> Vec<f32> {
        let mut output = vec![f32::NAN; self.batch * SHAPE.output()];
        let mut workspace = Workspace::new(Plan::sampling(SHAPE, self.batch, FRONT));
        workspace.forward(&self.inputs(contributions), &self.images, &mut output);
        output
    }

    /// A step with the gradient `d_output`; returns the output.
    fn step(&self, workspace: &mut Workspace, contributions: &[Contribution]) -> Vec<f32> {
        let each = SHAPE.output();
        let outputs = workspace.step(&self.inputs(contributions), &self.images, |sample, output, d_output| {
            d_output.copy_from_slice(&self.d_output[sample * each..(sample + 1) * each]);
            output.to_vec()
        });
        outputs.concat()
    }

    /// `sum(output d_output)`.
    fn loss(&self, contributions: &[Contribution]) -> f64 {
        let output = self.output(contributions);
        output.iter().zip(&self.d_output).map(|(o, w)| f64::from(*o) * f64::from(*w)).sum()
    }
}

/// A vector per sample for every token, or for each place in front.
fn broadcast(vectors: &[f32], in_front: bool) -> Contribution<'_> {
    match in_front {
        true => Contribution::PrependBroadcast { vectors, places: FRONT },
        false => Contribution::Broadcast { vectors },
    }
}

/// Fourth-order differences of the whole network in single precision, along the gradient plus a random vector of its
/// length, against `gradient . direction`; `loss` is given how far to move each value.
fn assert_slope(what: &str, gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    let norm = |a: &[f32]| a.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>().sqrt();
    let random = numbers(gradient.len(), 7, 1.0);
    let unit = |a: &[f32], i: usize| f64::from(a[i]) / norm(a);
    let direction: Vec<f64> = (0..gradient.len()).map(|i| unit(gradient, i) + unit(&random, i)).collect();
    let want: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum();
    let h = 0.04;
    let along = |h: f64| loss(&direction.iter().map(|d| (d * h) as f32).collect::<Vec<_>>());
    let ours = (8.0 * (along(h) - along(-h)) - (along(2.0 * h) - along(-2.0 * h))) / (12.0 * h);
    assert!((ours - want).abs() < 2e-3 * want.abs() + 3e-4, "{what}: differences give {ours}, the gradient {want}");
}

fn moved(values: &[f32], by: &[f32]) -> Vec<f32> {
    values.iter().zip(by).map(|(v, by)| v + by).collect()
}

#[test]
fn weights_and_prompts_match_finite_differences() {
    let problem = Problem::new(3);
    let d = SHAPE.hidden;
    for prepend in [false, true] {
        let contribution = if prepend { problem.prepend() } else { problem.weighted() };
        let n = if prepend { FRONT } else { SHAPE.tokens() };
        // the second block only: prepended prompts then lengthen the sequence in the middle of the trunk
        for blocks in [vec![1], vec![0, 2], vec![0, 1, 2]] {
            let has = |block: usize| blocks.contains(&block);
            let contributions: Vec<Contribution> =
                (0..3).map(|block| if has(block) { contribution } else { Contribution::None }).collect();
            let mut workspace = problem.workspace(Learn::Contributions { from: 0 });
            problem.step(&mut workspace, &contributions);
            for block in &blocks {
                let ContributionGradient::Prompts { weights, prompts } = &workspace.gradients().contributions[*block]
                else {
                    panic!("block {block} has prompts");
                };
                let name = format!("prepend {prepend}, blocks {blocks:?}, block {block}");
                let with = |weights: &[f32], prompts: &[f32]| {
                    let mut changed = contributions.clone();
                    changed[*block] = match prepend {
                        true => Contribution::Prepend { weights, prompts },
                        false => Contribution::Weighted { weights, prompts },
                    };
                    problem.loss(&changed)
                };
                let (w, p) = (&problem.weights[..problem.batch * n], &problem.prompts[..n * d]);
                assert_slope(&format!("{name} weights"), weights, |by| with(&moved(w, by), p));
                assert_slope(&format!("{name} prompts"), prompts, |by| with(w, &moved(p, by)));
            }
            let images = workspace.gradients().images.clone().unwrap();
            assert_slope("images", &images, |by| {
                let images = moved(&problem.images, by);
                Problem { images, ..Problem::new(3) }.loss(&contributions)
            });
        }
    }
}

#[test]
fn broadcast_vectors_match_finite_differences() {
    let problem = Problem::new(3);
    for in_front in [false, true] {
        let contribution = broadcast(&problem.vectors, in_front);
        let contributions = [contribution, Contribution::None, contribution];
        let mut workspace = problem.workspace(Learn::Contributions { from: 0 });
        problem.step(&mut workspace, &contributions);
        for block in [0, 2] {
            let ContributionGradient::Vectors(gradient) = &workspace.gradients().contributions[block] else {
                panic!("block {block} has vectors");
            };
            assert_slope(&format!("vectors, in front {in_front}, block {block}"), gradient, |by| {
                let vectors = moved(&problem.vectors, by);
                let mut changed = contributions;
                changed[block] = broadcast(&vectors, in_front);
                problem.loss(&changed)
            });
        }
    }
}

/// One vector at all places in front is a prompt at each with weight 1.
#[test]
fn broadcast_in_front_is_prepending_the_same_prompt() {
    let problem = Problem::new(1);
    let (d, weights) = (SHAPE.hidden, [1.0; FRONT]);
    let prompts = problem.vectors[..d].repeat(FRONT);
    let prepended = Contribution::Prepend { weights: &weights, prompts: &prompts };
    let [vectors, prompts] = [broadcast(&problem.vectors, true), prepended].map(|one| problem.output(&[one; 3]));
    assert!(vectors == prompts);
}

/// Everything that a step leaves behind, as bits.
fn step(problem: &Problem, contributions: &[Contribution], learn: Learn, threads: usize) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut workspace = problem.workspace(learn);
        let mut output = Vec::new();
        let inputs = problem.inputs(contributions);
        for _ in 0..2 {
            output = problem.step(&mut workspace, contributions);
            if learn == Learn::Everything {
                workspace.condition_backward(&inputs, OutsideGradients::default());
            }
        }
        let gradients = workspace.gradients();
        let mut all = output;
        all.extend(gradients.images.as_ref().unwrap());
        all.extend(gradients.parameters.iter().flat_map(|parameters| parameters.values()));
        for gradient in &gradients.contributions {
            match gradient {
                ContributionGradient::None => {}
                ContributionGradient::Prompts { weights, prompts } => all.extend(weights.iter().chain(prompts)),
                ContributionGradient::Vectors(vectors) => all.extend(vectors),
            }
        }
        assert!(all.iter().all(|v| v.is_finite()));
        all.iter().map(|v| v.to_bits()).collect()
    })
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    // 37 samples: lanes of two and three, so that shares are added up unevenly
    let problem = Problem::new(37);
    let [together, in_front] = [false, true].map(|in_front| broadcast(&problem.vectors, in_front));
    for contribution in [problem.weighted(), problem.prepend(), together, in_front] {
        let contributions = [contribution, contribution, Contribution::None];
        for learn in [Learn::Everything, Learn::Contributions { from: 0 }] {
            let one = step(&problem, &contributions, learn, 1);
            for threads in [2, 3] {
                let same = step(&problem, &contributions, learn, threads) == one;
                assert!(same, "{threads} threads, {learn:?}, {contribution:?}");
            }
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_the_batch() {
    let many = Problem::new(37);
    let all = many.output(&[many.weighted(); 3]);
    for batch in [1, 2, 5, 16, 20] {
        let few = Problem::new(batch);
        // the same samples: draws are functions of their index
        assert_eq!(few.images, many.images[..few.images.len()]);
        let some = few.output(&[few.weighted(); 3]);
        assert!(some == all[..some.len()], "the first {batch} of 37");
    }
}

/// Of what is learned per sample: each sample's gradient in a batch of many chunks is that of the sample alone.
#[test]
fn a_samples_gradients_are_its_own_in_every_batch() {
    let count = 301;
    let problem = Problem::new(count);
    let of = |plan: Plan, inputs: &Inputs, images: &[f32], d_output: &[f32]| {
        let mut workspace = Workspace::new(plan);
        let each = SHAPE.output();
        workspace.step(inputs, images, |sample, _, d| d.copy_from_slice(&d_output[sample * each..(sample + 1) * each]));
        match &workspace.gradients().contributions[1] {
            ContributionGradient::Vectors(gradient) => gradient.clone(),
            ContributionGradient::Prompts { weights, .. } => weights.clone(),
            ContributionGradient::None => panic!("block 1 is prompted"),
        }
    };
    for (what, contribution) in [
        ("broadcast", broadcast(&problem.vectors, false)),
        ("broadcast in front", broadcast(&problem.vectors, true)),
        ("weighted", problem.weighted()),
        ("prepended", problem.prepend()),
    ] {
        let learn = Learn::Contributions { from: 0 };
        let plan = Plan { learn, ..Plan::sampling(SHAPE, count, FRONT) };
        let contributions = [contribution; 3];
        let inputs = problem.inputs(&contributions);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let together = pool.install(|| of(plan, &inputs, &problem.images, &problem.d_output));
        let width = together.len() / count;
        for i in 0..count {
            let rows = [i as u32];
            let (image, output) = (SHAPE.image(), SHAPE.output());
            let alone = of(
                Plan { batch: 1, ..plan },
                &Inputs { rows: &rows, ..inputs },
                &problem.images[i * image..(i + 1) * image],
                &problem.d_output[i * output..(i + 1) * output],
            );
            assert!(alone[..width] == together[i * width..(i + 1) * width], "{what}: sample {i}");
        }
    }
}

#[test]
fn samples_that_share_a_row_equal_samples_with_their_own() {
    let mut problem = Problem::new(6);
    let (t, d) = (SHAPE.tokens(), SHAPE.hidden);
    problem.condition.compute(&problem.parameters, &[400.0; 6], &[1, 2, 1, 2, 1, 2]);
    let both = problem.weights[..2 * t].to_vec();
    problem.weights = [&both[..], &both, &both].concat();
    let own = problem.output(&[problem.weighted(); 3]);

    let mut condition = Condition::new(SHAPE, 2);
    condition.compute(&problem.parameters, &[400.0; 2], &[1, 2]);
    let shared = Contribution::Weighted { weights: &both, prompts: &problem.prompts[..t * d] };
    let inputs = Inputs {
        parameters: &problem.parameters,
        condition: &condition,
        rows: &[0, 1, 0, 1, 0, 1],
        contributions: &[shared; 3],
    };
    let mut output = vec![0.0; own.len()];
    Workspace::new(Plan::sampling(SHAPE, 6, 0)).forward(&inputs, &problem.images, &mut output);
    assert!(own == output);
}

#[test]
fn the_backward_pass_stops_at_the_first_prompted_block_with_the_same_gradients() {
    let problem = Problem::new(4);
    let contributions = [Contribution::None, Contribution::None, problem.weighted()];
    let gradient = |learn, image_gradient| {
        let plan = Plan { shape: SHAPE, batch: 4, learn, prepended: 0, image_gradient };
        let mut workspace = Workspace::new(plan);
        let output = problem.step(&mut workspace, &contributions);
        (output, workspace.gradients().contributions.clone())
    };
    let short = gradient(Learn::Contributions { from: 2 }, false);
    assert!(short == gradient(Learn::Contributions { from: 0 }, true));
    assert!(short == gradient(Learn::Everything, true));
}

#[test]
fn a_frozen_step_keeps_the_activations_of_a_chunk_per_thread() {
    // per token and block: x, queries/keys/values, attention output, middle, MLP pre-activation
    let counted = |samples: usize| 4 * SHAPE.depth * (1 + 3 + 1 + 1 + 4) * SHAPE.hidden * SHAPE.tokens() * samples;
    let problem = Problem::new(256);
    let contributions = [problem.weighted(); 3];
    let plan = Plan { learn: Learn::Contributions { from: 0 }, ..Plan::sampling(SHAPE, 256, 0) };
    let mut workspace = Workspace::new(plan);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| problem.step(&mut workspace, &contributions));
    assert!(workspace.bytes() < counted(256) / 2, "{} of {}", workspace.bytes(), counted(256));

    let mut sampling = Workspace::new(Plan::sampling(SHAPE, 256, 0));
    let mut output = vec![0.0; 256 * SHAPE.output()];
    pool.install(|| sampling.forward(&problem.inputs(&contributions), &problem.images, &mut output));
    assert!(sampling.bytes() < workspace.bytes(), "sampling keeps nothing");
}

#[test]
fn gradients_from_outside_reach_the_embedders() {
    let problem = Problem::new(5);
    let contributions = [Contribution::None; 3];
    let mut workspace = problem.workspace(Learn::Everything);
    let inputs = problem.inputs(&contributions);
    problem.step(&mut workspace, &contributions);
    let ones = vec![1.0; 5 * SHAPE.hidden];
    let mut label = |outside| {
        workspace.condition_backward(&inputs, outside);
        let parameters = workspace.gradients().parameters.as_ref().unwrap();
        let tensor = |name| parameters.tensor(name).unwrap().to_vec();
        (tensor("y_embedder.embedding_table.weight"), tensor("t_embedder.mlp.2.bias"))
    };
    let none = label(OutsideGradients::default());
    let with = label(OutsideGradients { label: Some(&ones), t_emb: Some(&ones) });
    // labels 0..5 are used once each; the bias adds up over the batch
    let apart = |a: &[f32], b: &[f32], by: f32| a.iter().zip(b).all(|(a, b)| (a - b - by).abs() < 1e-3);
    assert!(apart(&with.0, &none.0, 1.0) && apart(&with.1, &none.1, 5.0));
}

#[test]
#[should_panic(expected = "one contribution per block")]
fn a_missing_contribution_is_refused() {
    let problem = Problem::new(1);
    problem.output(&[Contribution::None; 2]);
}

#[test]
#[should_panic(expected = "Weighted: weights [R, T], prompts [T, D]")]
fn prompts_of_another_size_are_refused() {
    let problem = Problem::new(2);
    problem.output(&[Contribution::Weighted { weights: &problem.weights, prompts: &problem.prompts[1..] }; 3]);
}
