//! AdamW over all that learns, from the gradients of a step's parts, and the running average.

use std::ops::Range;

use crate::arguments::{Accumulate, AdamW, Average};
use crate::array::Array;
use crate::feed::Feed;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Precision};
use crate::setting::State;

/// Values that learn at one rate, with the gradient of a part; empty where there are none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Group {
    pub(crate) values: Address,
    pub(crate) gradient: Address,
    pub(crate) count: usize,
}

/// What is kept of how much.
#[derive(Clone)]
pub(crate) struct Kept {
    /// Values of each group.
    pub(crate) counts: [usize; 2],
    /// Those of the first that do not learn.
    pub(crate) fixed: Range<usize>,
    /// Whether a step has several parts.
    pub(crate) parts: bool,
    /// Whether the first group is a rounded copy of values that are kept here.
    pub(crate) rounded: bool,
    /// Whether a running average is kept.
    pub(crate) average: bool,
}

/// Moments and averages on a machine, flat over both groups.
pub(crate) struct Descent<M: Machine> {
    counts: [usize; 2],
    fixed: Range<usize>,
    /// The first group in `f32`, where the products read it rounded.
    master: Option<Array<M>>,
    /// Sums of the parts' gradients; none where a step has one part.
    sums: [Option<Array<M>>; 2],
    first: Array<M>,
    second: Array<M>,
    average: Option<Array<M>>,
}

impl<M: Machine> Descent<M> {
    pub(crate) fn new(machine: &M, kept: Kept) -> Result<Self, Error> {
        let Kept { counts, fixed, parts, rounded, average } = kept;
        let wide = |count| Array::zeros(machine, Precision::F32, count);
        let sum = |count: usize| (parts && count > 0).then(|| wide(count)).transpose();
        let all = counts.iter().sum();
        Ok(Self {
            counts,
            fixed,
            master: rounded.then(|| wide(counts[0])).transpose()?,
            sums: [sum(counts[0])?, sum(counts[1])?],
            first: wide(all)?,
            second: wide(all)?,
            average: average.then(|| wide(all)).transpose()?,
        })
    }

    /// Sets moments and average, and of the values what is kept here.
    pub(crate) fn set(&mut self, machine: &M, state: &State) -> Result<(), Error> {
        if let Some(master) = &mut self.master {
            master.write(machine, &state.values)?;
        }
        self.first.write(machine, &state.first)?;
        self.second.write(machine, &state.second)?;
        match &mut self.average {
            Some(average) => average.write(machine, &state.average),
            None => Ok(()),
        }
    }

    /// Where training stands, given the groups' `values`, which are not asked for where they are kept here. Waits.
    pub(crate) fn state(&self, machine: &M, values: impl FnOnce() -> Result<Vec<f32>, Error>) -> Result<State, Error> {
        let average = self.average.as_ref().map_or(Ok(Vec::new()), |average| average.read(machine))?;
        let values = self.master.as_ref().map_or_else(values, |master| master.read(machine))?;
        Ok(State { values, first: self.first.read(machine)?, second: self.second.read(machine)?, average })
    }

    /// Adds the gradients of a part to those of the parts before; `fresh` ones begin.
    pub(crate) fn accumulate(&self, l: Launcher<M>, groups: [Group; 2], fresh: bool) -> Result<(), Error> {
        for (sum, group) in self.sums.iter().zip(groups) {
            let Some(sum) = sum else { continue };
            let (count, values) = (group.count, group.gradient);
            // SAFETY: a sum is as long as what it sums.
            unsafe { l.accumulate(&Accumulate { sum: sum.start(), values, count, fresh: i32::from(fresh) })? };
        }
        Ok(())
    }

    /// One step of AdamW over both groups, and of the running average.
    pub(crate) fn step(&self, l: Launcher<M>, groups: [Group; 2], feed: &Feed<M>) -> Result<(), Error> {
        let mut behind = 0;
        for (number, group) in groups.into_iter().enumerate() {
            let master = self.master.as_ref().filter(|_| number == 0);
            let gradient = self.sums[number].as_ref().map_or(group.gradient, Array::start);
            let (values, copy) = match master {
                Some(master) => (master.start(), Some(group.values)),
                None => (group.values, None),
            };
            let group = Group { values, gradient, ..group };
            let fixed = if number == 0 { self.fixed.clone() } else { 0..0 };
            for range in [0..fixed.start, fixed.end..group.count] {
                if !range.is_empty() {
                    self.adamw(l, group, copy, range, behind, feed.factors(number))?;
                }
            }
            if let Some(average) = self.average.as_ref().filter(|_| group.count > 0) {
                let (average, decay) = (average.at(behind), feed.decay());
                // SAFETY: the average is as long as the values.
                unsafe { l.average(&Average { average, values, decay, count: group.count })? };
            }
            behind += self.counts[number];
        }
        Ok(())
    }

    /// One step over `range` of a group, whose moments lie `behind` further on.
    fn adamw(
        &self,
        l: Launcher<M>,
        group: Group,
        copy: Option<Address>,
        range: Range<usize>,
        behind: usize,
        factors: Address,
    ) -> Result<(), Error> {
        let Range { start, end } = range;
        let wide = start * Precision::F32.bytes();
        let precision = if copy.is_some() { l.precision } else { Precision::F32 };
        let arguments = AdamW {
            p: group.values.offset(wide),
            m: self.first.at(behind + start),
            v: self.second.at(behind + start),
            g: group.gradient.offset(wide),
            copy: copy.map_or(Address::NULL, |copy| copy.offset(start * precision.bytes())),
            factors,
            count: end - start,
        };
        // SAFETY: the ranges lie in the trained values.
        unsafe { Launcher { precision, ..l }.adamw(&arguments) }
    }
}
