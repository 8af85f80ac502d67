//! What the schedule is written for: something that holds memory, launches kernels by name and multiplies matrices. Two things are: a GPU
//! and the emulator.

use std::ffi::c_void;

/// What can go wrong on a machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine itself.
    #[error("{doing}: {reason}")]
    Machine {
        /// What was being done.
        doing: String,
        /// What the machine says.
        reason: String,
    },
    /// There is not enough memory.
    #[error("{:.2} GB of GPU memory are wanted, {:.2} GB are free: {advice}", *wanted as f64 / 1e9, *free as f64 / 1e9)]
    Memory {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes free.
        free: usize,
        /// What to do.
        advice: String,
    },
    /// A shape that the kernels are not compiled for.
    #[error("the GPU's kernels do not do {what}: {reason}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not, and what they do.
        reason: &'static str,
    },
}

/// An address in a machine's memory; 0 where a kernel is to leave something out.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub u64);

impl Address {
    /// Nothing.
    pub const NULL: Self = Self(0);

    /// As many bytes further on.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Type of the activations and of the weights as the products read them; sums are always `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// For checking against the CPU.
    F32,
    /// For speed, with tensor cores.
    Bf16,
}

impl Precision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// How the kernels' names end.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Blocks of a launch, their threads, and the bytes of shared memory of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x and y.
    pub blocks: [u32; 2],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// A row-major matrix as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// Its first value.
    pub address: Address,
    /// Whether its transpose takes part.
    pub transposed: bool,
}

impl Matrix {
    /// As it lies.
    pub fn plain(address: Address) -> Self {
        Self { address, transposed: false }
    }

    /// Its transpose.
    pub fn transposed(address: Address) -> Self {
        Self { address, transposed: true }
    }
}

/// `out [rows, columns] = left [rows, inner] right [inner, columns] + bias [columns]`, or `max(0, ..)` of it, summed in `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Type of both sides, of the bias, and, unless `wide`, of the output.
    pub precision: Precision,
    /// The left side.
    pub left: Matrix,
    /// The right side.
    pub right: Matrix,
    /// `NULL` for none.
    pub bias: Address,
    /// Where it is written.
    pub out: Address,
    /// Whether the output is `f32` whatever the precision: gradients of weights.
    pub wide: bool,
    /// Whether what is negative, behind the bias, becomes 0.
    pub relu: bool,
    /// Rows of the output.
    pub rows: usize,
    /// Columns of the output.
    pub columns: usize,
    /// Terms of each sum.
    pub inner: usize,
}

/// A place where kernels run. Everything is done in the order in which it is asked for; only `read` waits.
pub trait Machine {
    /// Memory that is given back when dropped.
    type Memory;
    /// Launches and products that can be done again and again.
    type Recording;

    /// Memory whose contents are undefined.
    ///
    /// # Errors
    /// [`Error::Memory`] where it is not there.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, Error>;

    /// Bytes that could still be allocated.
    ///
    /// # Errors
    /// Those of the machine.
    fn free(&self) -> Result<usize, Error>;

    /// Where the memory lies.
    fn address(&self, memory: &Self::Memory) -> Address;

    /// Copies bytes to the memory, from its byte `at` on.
    ///
    /// # Errors
    /// Those of the machine.
    fn write(&self, memory: &mut Self::Memory, at: usize, bytes: &[u8]) -> Result<(), Error>;

    /// Fills the memory with zeros.
    ///
    /// # Errors
    /// Those of the machine.
    fn clear(&self, memory: &mut Self::Memory) -> Result<(), Error>;

    /// Copies bytes from the beginning of the memory, after all that was asked for before.
    ///
    /// # Errors
    /// Those of the machine, and of kernels that failed.
    fn read(&self, memory: &Self::Memory, bytes: &mut [u8]) -> Result<(), Error>;

    /// Runs a kernel on one structure of arguments.
    ///
    /// # Safety
    /// `arguments` points to `size` bytes laid out as the kernel's structure, and the addresses in them are memory of this machine that is
    /// large enough for what the kernel does.
    ///
    /// # Errors
    /// There is no such kernel, or it cannot be launched so.
    unsafe fn launch(&self, kernel: &str, grid: Grid, arguments: *const c_void, size: usize) -> Result<(), Error>;

    /// Multiplies matrices.
    ///
    /// # Safety
    /// The addresses are memory of this machine that is as large as the product says.
    ///
    /// # Errors
    /// Those of the machine's library.
    unsafe fn multiply(&self, product: &Product) -> Result<(), Error>;

    /// What `work` launches and multiplies, which is not done now. `work` has been done once before, and neither allocates, copies nor
    /// waits.
    ///
    /// # Errors
    /// Those of `work`, and of the machine.
    fn record(&self, work: &dyn Fn() -> Result<(), Error>) -> Result<Self::Recording, Error>;

    /// Does what was recorded.
    ///
    /// # Errors
    /// Those of the machine.
    fn replay(&self, recording: &Self::Recording) -> Result<(), Error>;

    /// Milliseconds that what `work` asks for takes, by the machine's own clock. Waits.
    ///
    /// # Errors
    /// Those of `work`, and of the machine.
    fn time(&self, work: &mut dyn FnMut() -> Result<(), Error>) -> Result<f64, Error>;
}

/// Work that is the same each time: done call by call at first, then recorded, then replayed.
pub enum Repeated<M: Machine> {
    /// Not done yet.
    New,
    /// Done once: kernels are loaded, products prepared.
    Warm,
    /// As the machine replays it.
    Recorded(M::Recording),
}

impl<M: Machine> Repeated<M> {
    /// Does the work.
    ///
    /// # Errors
    /// Those of `work`, and of the machine.
    pub fn run(&mut self, machine: &M, work: &dyn Fn() -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Self::New => {
                work()?;
                *self = Self::Warm;
                Ok(())
            }
            Self::Warm => {
                let recording = machine.record(work)?;
                machine.replay(&recording)?;
                *self = Self::Recorded(recording);
                Ok(())
            }
            Self::Recorded(recording) => machine.replay(recording),
        }
    }
}
