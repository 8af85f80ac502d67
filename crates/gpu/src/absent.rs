//! The GPU of a build without CUDA: there is none, and nobody can make one.

use std::ffi::c_void;

use crate::machine::{Address, Error, Grid, Machine, Product};

/// No machine.
pub enum Absent {}

impl Machine for Absent {
    type Memory = ();
    type Recording = ();

    fn allocate(&self, _: usize) -> Result<(), Error> {
        match *self {}
    }

    fn free(&self) -> Result<usize, Error> {
        match *self {}
    }

    fn address(&self, (): &()) -> Address {
        match *self {}
    }

    fn write(&self, (): &mut (), _: usize, _: &[u8]) -> Result<(), Error> {
        match *self {}
    }

    fn clear(&self, (): &mut ()) -> Result<(), Error> {
        match *self {}
    }

    fn read(&self, (): &(), _: &mut [u8]) -> Result<(), Error> {
        match *self {}
    }

    unsafe fn launch(&self, _: &str, _: Grid, _: *const c_void, _: usize) -> Result<(), Error> {
        match *self {}
    }

    unsafe fn multiply(&self, _: &Product) -> Result<(), Error> {
        match *self {}
    }

    fn record(&self, _: &dyn Fn() -> Result<(), Error>) -> Result<(), Error> {
        match *self {}
    }

    fn replay(&self, (): &()) -> Result<(), Error> {
        match *self {}
    }

    fn time(&self, _: &mut dyn FnMut() -> Result<(), Error>) -> Result<f64, Error> {
        match *self {}
    }
}
