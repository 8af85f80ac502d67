//! A results tree for the plan of Table 4, written through the store as the engine writes it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifest::digest::{Digest, Key};
use manifest::method::{Method, Position};
use manifest::plan::{CellRun, Plan, PlannedCell, Table};
use manifest::{Request, Workspace};
use report::{Error, Report};
use safetensors::{Dtype, tensor::TensorView};
use store::{Code, CurvePoint, Finished, Machine, Outcome, Store};

/// Name of the metric at the tiny scale, taken from the plan.
pub(crate) fn metric(plan: &Plan) -> String {
    let run = &plan.tables[0].cells[0].runs[0];
    match &plan.stage(run.metrics).unwrap().stage {
        manifest::stage::Stage::Metrics(metrics) => metrics.name.clone(),
        _ => unreachable!("the stage of a metrics key"),
    }
}

/// The plan of Table 4 at the tiny scale, as if these seeds were its own: its report is no trial.
pub(crate) fn plan(seeds: &[u64], overrides: &[&str]) -> Plan {
    plan_of("table4", seeds, overrides)
}

/// The plan of an artifact at the tiny scale.
pub(crate) fn plan_of(artifact: &str, seeds: &[u64], overrides: &[&str]) -> Plan {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let request = Request {
        scale: "tiny".to_owned(),
        overrides: overrides.iter().map(|&text| text.to_owned()).collect(),
        seeds: Some(seeds.to_vec()),
    };
    let mut plan = Workspace::open(root).unwrap().load_artifact(artifact, &request).unwrap();
    plan.tables.iter_mut().for_each(|table| table.scale.seeds = seeds.to_vec());
    plan
}

/// A plan and its results.
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) store: Store,
    /// Whether what is committed comes from a working tree with local changes.
    pub(crate) dirty: Cell<bool>,
    /// How long what is committed took.
    pub(crate) took: Cell<Duration>,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("results")).unwrap();
        Self { plan, store, dirty: Cell::new(false), took: Cell::default(), folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn reports(&self) -> PathBuf {
        self.folder.path().join("reports")
    }

    pub(crate) fn build(&self) -> Result<Report, Error> {
        report::build(&self.plan, &self.store, &self.reports(), &operations)
    }

    /// Builds, and returns the report with its page.
    pub(crate) fn page(&self) -> (Report, String) {
        let report = self.build().unwrap();
        let page = fs::read_to_string(&report.files[0]).unwrap();
        (report, page)
    }

    pub(crate) fn table(&self) -> &Table {
        &self.plan.tables[0]
    }

    pub(crate) fn table_mut(&mut self) -> &mut Table {
        &mut self.plan.tables[0]
    }

    pub(crate) fn cell(&self, id: &str) -> &PlannedCell {
        self.table().cell(id).unwrap_or_else(|| panic!("no cell {id}"))
    }

    pub(crate) fn run(&self, cell: &str, seed: u64) -> &CellRun {
        self.cell(cell).runs.iter().find(|run| run.seed == seed).unwrap()
    }

    /// The distance of a cell at each seed, in the order of the seeds.
    pub(crate) fn measure(&self, cell: &str, values: &[f64]) {
        let name = metric(&self.plan);
        for (run, &value) in self.cell(cell).runs.iter().zip(values) {
            let mut metrics = BTreeMap::from([(name.clone(), value), ("reference".to_owned(), 10000.0)]);
            for subset in 0..8 {
                metrics
                    .insert(format!("{name}.subset.{subset:02}"), value + 1.0 + 0.01 * (subset as f64 * value).sin());
            }
            self.commit(run.metrics, Finished { metrics, ..finished() }, &[]);
        }
    }

    /// A number that a cell's measuring stages of a kind leave, at each seed.
    pub(crate) fn further(&self, cell: &str, kind: &str, numbers: &[(&str, &[f64])]) {
        for (i, run) in self.cell(cell).runs.iter().enumerate() {
            let of_kind = |key: &&Key| self.plan.stage(**key).unwrap().stage.kind() == kind;
            let key = *run.measures.iter().find(of_kind).unwrap_or_else(|| panic!("{cell} has no {kind}"));
            let metrics = numbers.iter().map(|(name, values)| ((*name).to_owned(), values[i])).collect();
            self.commit(key, Finished { metrics, ..finished() }, &[]);
        }
    }

    /// The distance of real images to the reference.
    pub(crate) fn floor(&self, value: f64) {
        let metrics = BTreeMap::from([(metric(&self.plan), value)]);
        self.commit(self.table().floor.expect("a scale with a floor"), Finished { metrics, ..finished() }, &[]);
    }

    /// A training that ends at an iteration; the curve has a point every ten.
    pub(crate) fn train(&self, cell: &str, seed: u64, iterations: usize, outcome: Outcome, loss: impl Fn(f64) -> f64) {
        let point = |iteration: usize| {
            let mse = loss(iteration as f64);
            let losses = [("mse", mse), ("vb", mse / 60.0), ("total", mse * 61.0 / 60.0)];
            let losses = losses.map(|(name, value)| (name.to_owned(), value)).into();
            CurvePoint { iteration: iteration as u64, learning_rate: 1e-3, losses }
        };
        let curve = (1..=iterations / 10).map(|i| point(10 * i)).collect();
        let key = self.run(cell, seed).trained.expect("a cell that trains");
        self.commit(key, Finished { outcome, curve, ..finished() }, &[]);
    }

    /// Sixteen samples whose colours depend on the cell and the noise.
    pub(crate) fn sample(&self, cell: &str, seed: u64, side: usize) {
        let shade = |i: usize, c: usize, x: usize, y: usize| {
            let (dx, dy) = (x as f64 - side as f64 / 2.0, y as f64 - side as f64 / 2.0);
            let face = (1.0 - (dx.hypot(dy) / side as f64 * 2.4).powi(2)).max(0.0);
            (255.0 * face * (0.5 + 0.5 * ((i * 3 + c * 2 + cell.len()) as f64).sin())) as u8
        };
        let mut bytes = Vec::new();
        for i in 0..16 {
            for c in 0..3 {
                bytes.extend((0..side * side).map(|p| shade(i, c, p % side, p / side)));
            }
        }
        let file = tensors(&[("samples", Dtype::U8, vec![16, 3, side, side], bytes)]);
        let run = self.run(cell, seed);
        for key in [run.sample].into_iter().chain(run.captions.iter().map(|(_, key)| *key)) {
            self.commit(key, finished(), &[("samples.safetensors", file.clone())]);
        }
    }

    /// A gate that is broad at high t and narrow at low t.
    pub(crate) fn activation(&self, cell: &str, seed: u64, blocks: usize, prompts: usize) {
        self.gate(cell, seed, (blocks, prompts), 3.0);
    }

    /// The same with logits of a size: of size 0 it is uniform.
    pub(crate) fn gate(&self, cell: &str, seed: u64, (blocks, prompts): (usize, usize), size: f64) {
        let timesteps: Vec<i64> = (0..50).map(|i| i * 999 / 49).collect();
        let mut weights: Vec<f32> = Vec::new();
        for &t in &timesteps {
            for block in 0..blocks {
                let logit = |n: usize| size * ((n * 7 + block * 5) as f64).sin() * (1.2 - t as f64 / 999.0);
                let sum: f64 = (0..prompts).map(|n| logit(n).exp()).sum();
                weights.extend((0..prompts).map(|n| (logit(n).exp() / sum) as f32));
            }
        }
        let weights = weights.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = vec![timesteps.len(), blocks, prompts];
        let steps = timesteps.iter().flat_map(|v| v.to_le_bytes()).collect();
        let file = tensors(&[
            ("weights", Dtype::F32, shape, weights),
            ("timesteps", Dtype::I64, vec![timesteps.len()], steps),
        ]);
        let key = self.run(cell, seed).activation.expect("a cell with a gate");
        self.commit(key, finished(), &[("activation.safetensors", file)]);
    }

    /// Writes the record of a stage, unless it is there.
    pub(crate) fn commit(&self, key: Key, finished: Finished, files: &[(&str, Vec<u8>)]) {
        let planned = self.plan.stage(key).unwrap();
        if self.store.tree().record(key, planned.stage.kind()).is_ok() {
            return;
        }
        let claim = self.store.claim(planned).unwrap();
        for (name, bytes) in files {
            fs::write(claim.dir().join(name), bytes).unwrap();
        }
        std::thread::sleep(self.took.get());
        let artifacts = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let code = Code {
            git_commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            dirty_diff_sha256: self.dirty.get().then(|| Digest::of(b"local changes")),
            cargo_lock_sha256: Digest::of(b"lock"),
            binary_sha256: None,
            rustc: "rustc 1.95.0".to_owned(),
        };
        let machine = Machine { cpu: Some("A processor".to_owned()), device: "cpu".to_owned(), threads: 1 };
        claim.commit(&Finished { artifacts, ..finished }, code, machine).unwrap();
    }
}

/// Counts of what prompts cost that are told from all others.
pub(crate) fn operations(network: &str, method: &Method) -> Option<f64> {
    let prompts = method.prompts().filter(|_| network == "DiT-B/2")?;
    Some(if matches!(prompts.position, Position::Add(_)) { 1.00081 } else { 1.25 })
}

/// A stage that ended as planned and has nothing to say.
pub(crate) fn finished() -> Finished {
    Finished { outcome: Outcome::Completed, metrics: BTreeMap::new(), curve: Vec::new(), artifacts: Vec::new() }
}

fn tensors(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let view = |(name, dtype, shape, bytes): &(&str, Dtype, Vec<usize>, Vec<u8>)| {
        (
            name.to_string(),
            TensorView::new(*dtype, shape.clone(), bytes).unwrap().data().to_vec(),
            *dtype,
            shape.clone(),
        )
    };
    let owned: Vec<_> = tensors.iter().map(view).collect();
    let views =
        owned.iter().map(|(name, bytes, dtype, shape)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// Table 4 with every state that a cell can be in: most cells measured, `d/prepend` diverged, `reference/finetune` not run.
pub(crate) fn full(seeds: &[u64]) -> Bench {
    let bench = Bench::new(plan(seeds, &[]));
    let noise = |cell: &str, seed: u64| {
        0.01 * ((cell.len() * 13 + cell.bytes().map(usize::from).sum::<usize>()) as f64 + 7.0 * seed as f64).sin()
    };
    let each = |cell: &str, value: f64| {
        let values: Vec<f64> =
            seeds.iter().map(|&seed| value + 0.3 * (seed as f64).cos() + noise(cell, seed)).collect();
        bench.measure(cell, &values);
    };
    for (cell, value) in [
        ("baseline", 6.0),
        ("a/attention", 6.2), // direction holds against the baseline and linear
        ("a/linear", 5.7),
        ("b/hard", 5.4),      // contradicted against soft
        ("c/uniform", 5.701), // inconclusive against distinct
        ("e/ib0_lb0", 5.8),
        ("e/ib2_lb1", 5.75),
        ("depth/first", 5.9),
        ("depth/half", 5.8),
        ("reference/prompt_tuning", 5.5),
        ("positive_control", 9.0),
    ] {
        each(cell, value);
    }
    for &seed in seeds {
        bench.train("d/prepend", seed, 70, Outcome::Diverged { iteration: 73 }, |i| 0.07 + (i / 8.0 - 6.0).exp());
    }
    bench
}
