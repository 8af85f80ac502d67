//! The machine that runs the kernels on a CPU, as g++ compiles them.

use std::cell::RefCell;
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
pub struct Emulator {
    order: u32,
    /// What is asked for while something is recorded.
    recording: RefCell<Option<Vec<Asked>>>,
}

/// What a recording holds, with copies of the kernels' arguments: as in a graph, they are those of the time of recording.
pub enum Asked {
    /// A launch, its arguments in whole words, and their bytes.
    Launch(String, Grid, Vec<u64>, usize),
    /// A product.
    Multiply(Product),
}

impl Emulator {
    /// `order` 0: first to last, 1: last to first, else a permutation of that number. A warp goes as far as it can before the next one
    /// starts; at 3, 7, .. all go side by side. Buffers lie against the page behind them where it is even, else against the page before them.
    pub fn new(order: u32) -> Self {
        Self { order, recording: RefCell::new(None) }
    }
}

/// A buffer.
pub struct Guarded(*mut c_void, usize);

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: made by `emulator_allocate`, freed once.
        unsafe { emulator_free(self.0) }
    }
}

impl Emulator {
    /// Notes `asked` where something is recorded.
    fn noted(&self, asked: impl FnOnce() -> Asked) -> bool {
        let mut recording = self.recording.borrow_mut();
        recording.as_mut().map(|all| all.push(asked())).is_some()
    }

    /// Whether something is recorded, when nothing may be done that a graph cannot hold.
    fn captured(&self, doing: &str) -> Result<(), Error> {
        if self.recording.borrow().is_none() {
            return Ok(());
        }
        Err(Error::Machine { doing: doing.into(), reason: "a graph cannot hold it".into() })
    }
}

impl Machine for Emulator {
    type Memory = Guarded;
    type Recording = Vec<Asked>;

    fn allocate(&self, bytes: usize) -> Result<Guarded, Error> {
        self.captured("allocating")?;
        // SAFETY: any size may be asked for.
        let memory = unsafe { emulator_allocate(bytes, c_int::from(self.order.is_multiple_of(2))) };
        Ok(Guarded(memory, bytes))
    }

    fn free(&self) -> Result<usize, Error> {
        Ok(usize::MAX)
    }

    fn address(&self, memory: &Guarded) -> Address {
        // SAFETY: the memory is alive.
        Address(unsafe { emulator_bytes(memory.0) } as u64)
    }

    fn write(&self, memory: &mut Guarded, at: usize, bytes: &[u8]) -> Result<(), Error> {
        self.captured("writing")?;
        // SAFETY: a guard page ends the process where the memory is shorter.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), emulator_bytes(memory.0).add(at), bytes.len()) };
        Ok(())
    }

    fn clear(&self, memory: &mut Guarded) -> Result<(), Error> {
        self.captured("clearing")?;
        // SAFETY: as many bytes as were allocated.
        unsafe { std::ptr::write_bytes(emulator_bytes(memory.0), 0, memory.1) };
        Ok(())
    }

    fn read(&self, memory: &Guarded, bytes: &mut [u8]) -> Result<(), Error> {
        self.captured("reading")?;
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(emulator_bytes(memory.0), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: &str, grid: Grid, arguments: *const c_void, size: usize) -> Result<(), Error> {
        let noted = self.noted(|| {
            let mut words = vec![0_u64; size.div_ceil(8)];
            // SAFETY: the caller's promise; the words have room for as many bytes.
            unsafe { std::ptr::copy_nonoverlapping(arguments.cast::<u8>(), words.as_mut_ptr().cast(), size) };
            Asked::Launch(kernel.to_owned(), grid, words, size)
        });
        if noted {
            return Ok(());
        }
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
        if self.noted(|| Asked::Multiply(*p)) {
            return Ok(());
        }
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
                let value = if p.relu && value < 0.0 { 0.0 } else { value };
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

    fn record(&self, work: &dyn Fn() -> Result<(), Error>) -> Result<Vec<Asked>, Error> {
        self.recording.replace(Some(Vec::new()));
        let done = work();
        let recorded = self.recording.take().unwrap_or_default();
        done.map(|()| recorded)
    }

    fn replay(&self, recording: &Vec<Asked>) -> Result<(), Error> {
        for asked in recording {
            // SAFETY: whoever recorded it promised.
            unsafe {
                match asked {
                    Asked::Launch(kernel, grid, words, size) => {
                        self.launch(kernel, *grid, words.as_ptr().cast(), *size)?
                    }
                    Asked::Multiply(product) => self.multiply(product)?,
                }
            }
        }
        Ok(())
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<(), Error>) -> Result<f64, Error> {
        let start = std::time::Instant::now();
        work()?;
        Ok(1e3 * start.elapsed().as_secs_f64())
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
