//! Memory of a machine with a type and a length.

use half::bf16;

use crate::arguments::{Place, ReverseStep, Timestep};
use crate::machine::{Address, Error, Machine, Precision};

/// Values of a precision.
pub struct Array<M: Machine> {
    memory: M::Memory,
    address: Address,
    count: usize,
    precision: Precision,
}

impl<M: Machine> Array<M> {
    /// `count` undefined values.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(machine: &M, precision: Precision, count: usize) -> Result<Self, Error> {
        let memory = machine.allocate(count * precision.bytes())?;
        let address = machine.address(&memory);
        Ok(Self { memory, address, count, precision })
    }

    /// The values, rounded to the precision.
    ///
    /// # Errors
    /// There is no memory.
    pub fn from(machine: &M, precision: Precision, values: &[f32]) -> Result<Self, Error> {
        let mut array = Self::new(machine, precision, values.len())?;
        array.write(machine, values)?;
        Ok(array)
    }

    /// Zeros.
    ///
    /// # Errors
    /// There is no memory.
    pub fn zeros(machine: &M, precision: Precision, count: usize) -> Result<Self, Error> {
        let mut array = Self::new(machine, precision, count)?;
        machine.clear(&mut array.memory)?;
        Ok(array)
    }

    /// Number of values.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Where the values from `first` on lie.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn at(&self, first: usize) -> Address {
        assert!(first <= self.count, "value {first} of {}", self.count);
        self.address.offset(first * self.precision.bytes())
    }

    /// The first value's place.
    pub fn start(&self) -> Address {
        self.address
    }

    /// Overwrites all values.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn write(&mut self, machine: &M, values: &[f32]) -> Result<(), Error> {
        assert_eq!(values.len(), self.count, "as many values as the array has");
        self.write_from(machine, 0, values)
    }

    /// Overwrites the values from `first` on.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn write_from(&mut self, machine: &M, first: usize, values: &[f32]) -> Result<(), Error> {
        assert!(first + values.len() <= self.count, "values {first}.. of {}", self.count);
        let bytes: Vec<u8> = match self.precision {
            Precision::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Precision::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        };
        machine.write(&mut self.memory, first * self.precision.bytes(), &bytes)
    }

    /// All values.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn read(&self, machine: &M) -> Result<Vec<f32>, Error> {
        let mut bytes = vec![0; self.count * self.precision.bytes()];
        machine.read(&self.memory, &mut bytes)?;
        Ok(match self.precision {
            Precision::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Precision::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        })
    }
}

/// Whole numbers: rows, labels, timesteps, the step.
pub struct Numbers<M: Machine> {
    memory: M::Memory,
    address: Address,
    count: usize,
}

impl<M: Machine> Numbers<M> {
    /// Copies numbers.
    ///
    /// # Errors
    /// There is no memory.
    pub fn from(machine: &M, values: &[u32]) -> Result<Self, Error> {
        let memory = machine.allocate(values.len() * 4)?;
        let mut numbers = Self { address: machine.address(&memory), memory, count: values.len() };
        numbers.write(machine, values)?;
        Ok(numbers)
    }

    /// Overwrites all.
    ///
    /// # Errors
    /// Those of the machine.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn write(&mut self, machine: &M, values: &[u32]) -> Result<(), Error> {
        assert_eq!(values.len(), self.count, "as many numbers as there are");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        machine.write(&mut self.memory, 0, &bytes)
    }

    /// The first number's place.
    pub fn start(&self) -> Address {
        self.address
    }
}

/// Values whose every byte is part of a number.
///
/// # Safety
/// There are no gaps in them.
pub unsafe trait Flat: Copy {}

// SAFETY: numbers, and structures of numbers that leave no gaps: 8 and 4 bytes in pairs, or 4 bytes alone.
unsafe impl Flat for u64 {}
// SAFETY: as above.
unsafe impl Flat for Timestep {}
// SAFETY: as above.
unsafe impl Flat for Place {}
// SAFETY: as above.
unsafe impl Flat for ReverseStep {}

/// Structures or doubles, copied as they lie.
pub struct Plain<M: Machine> {
    memory: M::Memory,
    address: Address,
}

impl<M: Machine> Plain<M> {
    /// `bytes` undefined bytes.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(machine: &M, bytes: usize) -> Result<Self, Error> {
        let memory = machine.allocate(bytes)?;
        Ok(Self { address: machine.address(&memory), memory })
    }

    /// Copies structures or doubles.
    ///
    /// # Errors
    /// There is no memory.
    pub fn from<T: Flat>(machine: &M, values: &[T]) -> Result<Self, Error> {
        let mut plain = Self::new(machine, size_of_val(values))?;
        plain.write(machine, 0, values)?;
        Ok(plain)
    }

    /// Overwrites the values from `first` on.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn write<T: Flat>(&mut self, machine: &M, first: usize, values: &[T]) -> Result<(), Error> {
        // SAFETY: `Flat` values have no gaps between or within them.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        machine.write(&mut self.memory, first * size_of::<T>(), bytes)
    }

    /// `count` doubles.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn doubles(&self, machine: &M, count: usize) -> Result<Vec<f64>, Error> {
        let mut bytes = vec![0; count * 8];
        machine.read(&self.memory, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
    }

    /// The place of the byte `at`.
    pub fn at(&self, at: usize) -> Address {
        self.address.offset(at)
    }

    /// The first byte's place.
    pub fn start(&self) -> Address {
        self.address
    }
}
