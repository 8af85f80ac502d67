//! The machine that runs the kernels on a CPU, as g++ compiles them.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use half::bf16;

use crate::machine::{Address, Error, Grid, Machine, Matrix, Precision, Product};

unsafe extern "C" {
    fn emulator_allocate(count: usize, at_end: c_int) -> *mut c_void;
    fn emulator_bytes(memory: *mut c_void) -> *mut u8;
    fn emulator_free(memory: *mut c_void);
    fn emulator_launch(
        name: *const c_char,
        x: c_uint,
        y: c_uint,
        threads: c_uint,
        shared: usize,
        arguments: *const c_void,
        size: usize,
        order: c_uint,
    ) -> c_int;
}

/// Threads and blocks run one after another in an order; buffers lie between pages that nobody may touch.
#[derive(Clone, Copy, Debug)]
pub struct Emulator {
    order: u32,
}

impl Emulator {
    /// `order` 0: first to last, 1: last to first, else a permutation of that number. A warp goes as far as it can before the next one
    /// starts; at 3, 7, .. all go side by side. Buffers lie against the page behind them where it is even, else against the page before them.
    pub fn new(order: u32) -> Self {
        Self { order }
    }
}

/// A buffer.
pub struct Guarded(*mut c_void);

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: made by `emulator_allocate`, freed once.
        unsafe { emulator_free(self.0) }
    }
}

impl Machine for Emulator {
    type Memory = Guarded;

    fn allocate(&self, bytes: usize) -> Result<Guarded, Error> {
        // SAFETY: any size may be asked for.
        Ok(Guarded(unsafe { emulator_allocate(bytes, c_int::from(self.order.is_multiple_of(2))) }))
    }

    fn address(&self, memory: &Guarded) -> Address {
        // SAFETY: the memory is alive.
        Address(unsafe { emulator_bytes(memory.0) } as u64)
    }

    fn write(&self, memory: &mut Guarded, bytes: &[u8]) -> Result<(), Error> {
        // SAFETY: a guard page ends the process where the memory is shorter.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), emulator_bytes(memory.0), bytes.len()) };
        Ok(())
    }

    fn read(&self, memory: &Guarded, bytes: &mut [u8]) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(emulator_bytes(memory.0), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: &str, grid: Grid, arguments: *const c_void, size: usize) -> Result<(), Error> {
        let Grid { blocks: [x, y], threads, shared } = grid;
        let name = CString::new(kernel).expect("a kernel's name has no zeros");
        // SAFETY: the caller's promise.
        let code = unsafe { emulator_launch(name.as_ptr(), x, y, threads, shared, arguments, size, self.order) };
        let reason = match code {
            0 => return Ok(()),
            1 => "there is no kernel of this name".to_owned(),
            2 => format!("its arguments are not {size} bytes"),
            _ => format!("its blocks do not have {threads} threads"),
        };
        Err(Error::Machine { doing: format!("launching {kernel}"), reason })
    }

    unsafe fn multiply(&self, p: &Product) -> Result<(), Error> {
        let left = values(p.left, p.precision, p.rows, p.inner);
        let right = values(p.right, p.precision, p.inner, p.columns);
        let bias = match p.bias {
            Address::NULL => vec![0.0; p.columns],
            address => values(Matrix::plain(address), p.precision, 1, p.columns),
        };
        for (i, left) in left.chunks_exact(p.inner).enumerate() {
            let mut row = vec![0.0; p.columns];
            for (left, right) in left.iter().zip(right.chunks_exact(p.columns)) {
                row.iter_mut().zip(right).for_each(|(sum, right)| *sum += left * right);
            }
            for (j, (sum, bias)) in row.iter().zip(&bias).enumerate() {
                let (place, value) = (i * p.columns + j, sum + bias);
                // SAFETY: the caller's promise.
                unsafe {
                    match (p.precision, p.wide) {
                        (Precision::Bf16, false) => *(p.out.0 as *mut bf16).add(place) = bf16::from_f32(value),
                        _ => *(p.out.0 as *mut f32).add(place) = value,
                    }
                }
            }
        }
        Ok(())
    }
}

/// A side of a product as `[rows, columns]`.
fn values(matrix: Matrix, precision: Precision, rows: usize, columns: usize) -> Vec<f32> {
    // SAFETY: called with the sides of a product, whose sizes the caller promises.
    let at = |place: usize| unsafe {
        match precision {
            Precision::F32 => *(matrix.address.0 as *const f32).add(place),
            Precision::Bf16 => (*(matrix.address.0 as *const bf16).add(place)).to_f32(),
        }
    };
    let place = |i: usize, j: usize| if matrix.transposed { j * rows + i } else { i * columns + j };
    (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| at(place(i, j))).collect()
}
