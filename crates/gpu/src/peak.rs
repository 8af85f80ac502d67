//! What a machine's matrix products reach: the floor of everything else.

use crate::array::Array;
use crate::launch::Launcher;
use crate::machine::{Address, Error, Machine, Matrix, Precision};

/// Products in a row.
const ROW: usize = 8;

/// 10^9 operations a second of products of square matrices, the best of some rows of them.
///
/// # Errors
/// Those of the machine.
pub fn peak<M: Machine>(machine: &M, precision: Precision, side: usize) -> Result<f64, Error> {
    // not zeros: those take less power, and are multiplied faster
    let value = |i: usize| (i as u32).wrapping_mul(0x9E37_79B9) as f32 / 4_294_967_296.0 - 0.5;
    let values: Vec<f32> = (0..side * side).map(value).collect();
    let array = || Array::from(machine, precision, &values);
    let out: Array<M> = Array::new(machine, precision, side * side)?;
    let (left, right, l) = (array()?, array()?, Launcher { machine, precision });
    let row = || -> Result<f64, Error> {
        machine.time(&mut || {
            for _ in 0..ROW {
                let (left, right) = (Matrix::plain(left.start()), Matrix::transposed(right.start()));
                // SAFETY: all three are as large as the product says.
                unsafe { l.multiply(out.start(), [side; 3], left, right, Address::NULL)? };
            }
            Ok(())
        })
    };
    row()?;
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        least = least.min(row()?);
    }
    Ok(2.0 * (side as f64).powi(3) * ROW as f64 / (1e6 * least))
}
