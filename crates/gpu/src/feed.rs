//! What many steps train on, written by the host at once, and what they leave behind: between two steps the host does nothing that waits.

use crate::arguments::{Advance, Begin, Note, Place};
use crate::array::{Array, Numbers, Plain};
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};
use crate::optimizer::Rates;

/// Steps that are written, and whose losses are read, at once.
pub const SLOTS: usize = 32;

/// Numbers of a step's rates.
const RATES: usize = 8;

/// Means over a step's batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepLosses {
    /// Weighted squared error.
    pub mse: f64,
    /// Variational bound.
    pub vb: f64,
    /// Importance loss, before its coefficient; 0 where there is none.
    pub importance: f64,
    /// Load loss, before its coefficient, which is a sum over the batch; 0 where there is none.
    pub load: f64,
}

/// Places and rates of as many steps as there are slots, the number of the step, and the losses of each.
pub(crate) struct Feed<M: Machine> {
    batch: usize,
    number: Numbers<M>,
    places: Plain<M>,
    rates: Array<M>,
    /// Rates of the step that is done.
    current: Array<M>,
    losses: Plain<M>,
}

impl<M: Machine> Feed<M> {
    pub(crate) fn new(machine: &M, batch: usize) -> Result<Self, Error> {
        Ok(Self {
            batch,
            number: Numbers::from(machine, &[0])?,
            places: Plain::new(machine, SLOTS * batch * size_of::<Place>())?,
            rates: Array::zeros(machine, Precision::F32, SLOTS * RATES)?,
            current: Array::zeros(machine, Precision::F32, RATES)?,
            losses: Plain::new(machine, SLOTS * 32)?,
        })
    }

    /// Samples of a step.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// Sets the number of the step that comes next.
    pub(crate) fn start(&mut self, machine: &M, number: u32) -> Result<(), Error> {
        self.number.write(machine, &[number])
    }

    /// Writes what step `number` trains on.
    pub(crate) fn write(&mut self, machine: &M, number: u32, places: &[Place], rates: &Rates) -> Result<(), Error> {
        assert_eq!(places.len(), self.batch, "as many places as a batch has");
        let slot = number as usize % SLOTS;
        self.places.write(machine, slot * self.batch, places)?;
        let mut numbers = [0.0; RATES];
        numbers[..3].copy_from_slice(&rates.factors(0, u64::from(number) + 1));
        numbers[3..6].copy_from_slice(&rates.factors(1, u64::from(number) + 1));
        (numbers[6], numbers[7]) = (rates.decay as f32, (1.0 - rates.decay) as f32);
        self.rates.write_from(machine, slot * RATES, &numbers)
    }

    /// Where the number of the step lies.
    pub(crate) fn number(&self) -> Address {
        self.number.start()
    }

    /// Where AdamW's factors of a group lie.
    pub(crate) fn factors(&self, group: usize) -> Address {
        self.current.at(3 * group)
    }

    /// Where the average's decay lies.
    pub(crate) fn decay(&self) -> Address {
        self.current.at(6)
    }

    /// Takes `rows` places from `first` on to where examples, labels and timesteps are read.
    pub(crate) fn begin(&self, l: Launcher<M>, into: [Address; 3], first: usize, rows: usize) -> Result<(), Error> {
        let [examples, labels, timesteps] = into;
        let arguments = Begin {
            number: self.number.start(),
            places: self.places.start(),
            rates: self.rates.start(),
            examples,
            labels,
            timesteps,
            current: self.current.start(),
            slots: SLOTS as i32,
            batch: self.batch as i32,
            first: first as i32,
            rows: rows as i32,
        };
        // SAFETY: every array was made for this batch; the slots' places lie in their tables, as `write` is promised.
        unsafe { l.begin(&arguments) }
    }

    /// Keeps the means of the samples' `terms [B, 2]` and of the balancing losses `[B]`, importance and load, and goes on to the next step.
    pub(crate) fn finish(&self, l: Launcher<M>, terms: Address, balance: [Address; 2]) -> Result<(), Error> {
        let [importance, load] = balance;
        let note = Note {
            number: self.number.start(),
            terms,
            importance,
            load,
            losses: self.losses.start(),
            slots: SLOTS as i32,
            batch: self.batch as i32,
        };
        // SAFETY: as above.
        unsafe {
            l.note(&note)?;
            l.advance(&Advance { number: self.number.start() })
        }
    }

    /// The losses of the steps `first..first + count`, at most as many as there are slots. Waits.
    pub(crate) fn losses(&self, machine: &M, first: u32, count: usize) -> Result<Vec<StepLosses>, Error> {
        assert!(count <= SLOTS, "older losses are gone");
        let all = self.losses.doubles(machine, 4 * SLOTS)?;
        let of = |number: usize| {
            let at = number % SLOTS * 4;
            StepLosses { mse: all[at], vb: all[at + 1], importance: all[at + 2], load: all[at + 3] }
        };
        Ok((first as usize..first as usize + count).map(of).collect())
    }
}
