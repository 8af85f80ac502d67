//! How much memory something takes, before it takes it: a machine that counts what it is asked for.

use std::cell::Cell;
use std::ffi::c_void;

use crate::machine::{Address, Error, Grid, Machine, Product};

/// What the driver gives a large allocation in, and a small one.
const LARGE: usize = 2 << 20;
const SMALL: usize = 512;

/// Holds nothing.
#[derive(Default)]
pub struct Ledger {
    bytes: Cell<usize>,
}

impl Ledger {
    /// Bytes that what was made with it would hold on a GPU.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

impl Machine for Ledger {
    type Memory = ();
    type Recording = ();

    fn allocate(&self, bytes: usize) -> Result<(), Error> {
        let granule = if bytes < LARGE { SMALL } else { LARGE };
        self.bytes.set(self.bytes.get() + bytes.next_multiple_of(granule));
        Ok(())
    }

    fn free(&self) -> Result<usize, Error> {
        Ok(usize::MAX)
    }

    fn address(&self, (): &()) -> Address {
        Address::NULL
    }

    fn write(&self, (): &mut (), _: usize, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn clear(&self, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }

    fn read(&self, (): &(), _: &mut [u8]) -> Result<(), Error> {
        unreachable!("an estimate reads nothing")
    }

    unsafe fn launch(&self, _: &str, _: Grid, _: *const c_void, _: usize) -> Result<(), Error> {
        unreachable!("an estimate launches nothing")
    }

    unsafe fn multiply(&self, _: &Product) -> Result<(), Error> {
        unreachable!("an estimate multiplies nothing")
    }

    fn record(&self, _: &dyn Fn() -> Result<(), Error>) -> Result<(), Error> {
        unreachable!("an estimate records nothing")
    }

    fn replay(&self, (): &()) -> Result<(), Error> {
        unreachable!("an estimate replays nothing")
    }

    fn time(&self, _: &mut dyn FnMut() -> Result<(), Error>) -> Result<f64, Error> {
        unreachable!("an estimate takes no time")
    }
}
