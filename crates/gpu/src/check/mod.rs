//! Every kernel on a machine against the CPU engine, on random numbers: the emulator's tests and a GPU's self-test are this.

mod attention;
mod elementwise;
mod front;
mod gate;
mod maps;
mod mixture;
mod oracle;
mod reductions;
mod rows;
mod sampling;
mod steps;
mod training;
mod trunk;

pub use maps::maps;
pub use sampling::samples;
pub use steps::{CASES, steps};

use random::{Draws, Stream};

use crate::array::{Array, Numbers};
use crate::launch::Launcher;
use crate::machine::{Error, Machine, Precision};

/// How far a kernel is from the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The kernel, and on what.
    pub what: String,
    /// Of which precision.
    pub precision: Precision,
    /// Largest difference over the largest value.
    pub error: f64,
    /// How large it may be.
    pub bound: f64,
    /// Hash of the bits that the kernel left: equal wherever threads ran in another order.
    pub bits: u64,
}

impl Finding {
    /// Whether the error is within the bound; a number that is none is not.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// Runs all checks of a precision.
///
/// # Errors
/// The machine cannot run a kernel at all.
pub fn kernels<M: Machine>(machine: &M, precision: Precision) -> Result<Vec<Finding>, Error> {
    let mut bench = Bench { launcher: Launcher { machine, precision }, findings: Vec::new(), seed: 0 };
    rows::check(&mut bench)?;
    front::check(&mut bench)?;
    elementwise::check(&mut bench)?;
    reductions::check(&mut bench)?;
    attention::check(&mut bench)?;
    gate::check(&mut bench)?;
    if precision == Precision::F32 {
        training::check(&mut bench)?;
    }
    Ok(bench.findings)
}

/// Runs whole passes of the schedule.
///
/// # Errors
/// The machine cannot run a kernel at all.
pub fn passes<M: Machine>(machine: &M, precision: Precision) -> Result<Vec<Finding>, Error> {
    let mut bench = Bench { launcher: Launcher { machine, precision }, findings: Vec::new(), seed: 100 };
    trunk::check(&mut bench)?;
    Ok(bench.findings)
}

/// Makes inputs and compares outputs.
struct Bench<'m, M> {
    launcher: Launcher<'m, M>,
    findings: Vec<Finding>,
    seed: u64,
}

impl<M: Machine> Bench<'_, M> {
    /// Normals times `scale`, rounded to the precision.
    fn numbers(&mut self, count: usize, scale: f32) -> Vec<f32> {
        self.seed += 1;
        let mut values = vec![0.0; count];
        Draws::new(self.seed, Stream::Factors, 0).fill_normal(0, &mut values);
        values.iter_mut().for_each(|v| *v = self.rounded(*v * scale));
        values
    }

    fn rounded(&self, value: f32) -> f32 {
        match self.launcher.precision {
            Precision::F32 => value,
            Precision::Bf16 => half::bf16::from_f32(value).to_f32(),
        }
    }

    /// The values on the machine, in the precision.
    fn put(&self, values: &[f32]) -> Result<Array<M>, Error> {
        Array::from(self.launcher.machine, self.launcher.precision, values)
    }

    /// The values on the machine, in `f32`.
    fn put_wide(&self, values: &[f32]) -> Result<Array<M>, Error> {
        Array::from(self.launcher.machine, Precision::F32, values)
    }

    fn put_numbers(&self, values: &[u32]) -> Result<Numbers<M>, Error> {
        Numbers::from(self.launcher.machine, values)
    }

    /// Room for an output in the precision, or in `f32`.
    fn room(&self, count: usize) -> Result<Array<M>, Error> {
        Array::new(self.launcher.machine, self.launcher.precision, count)
    }

    fn room_wide(&self, count: usize) -> Result<Array<M>, Error> {
        Array::new(self.launcher.machine, Precision::F32, count)
    }

    /// Holds an array against what it should be: `f32` within 1e-5, bf16 within 1e-2.
    fn compare(&mut self, what: &str, ours: &Array<M>, want: &[f32]) -> Result<(), Error> {
        let bound = match self.launcher.precision {
            Precision::F32 => 1e-5,
            Precision::Bf16 => 1e-2,
        };
        let ours = ours.read(self.launcher.machine)?;
        self.find(what, &ours, want, bound);
        Ok(())
    }

    /// Holds an array against its very bits.
    fn identical(&mut self, what: &str, ours: &Array<M>, want: &[f32]) -> Result<(), Error> {
        let ours = ours.read(self.launcher.machine)?;
        self.find(what, &ours, want, 0.0);
        Ok(())
    }

    fn find(&mut self, what: &str, ours: &[f32], want: &[f32], bound: f64) {
        let precision = self.launcher.precision;
        self.findings.push(Finding {
            what: what.into(),
            precision,
            error: distance(ours, want),
            bound,
            bits: hash(ours),
        });
    }
}

/// Largest difference over the largest value; infinite where something is no number or lengths differ.
pub fn distance(ours: &[f32], want: &[f32]) -> f64 {
    if ours.len() != want.len() || ours.iter().chain(want).any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let apart = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs();
    let largest = want.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
    let worst = ours.iter().zip(want).map(apart).fold(0.0, f64::max);
    if worst == 0.0 { 0.0 } else { worst / largest }
}

/// FNV-1a over the bits.
pub fn hash(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
