//! Devices by name: `cpu`, `cuda:0`; whether this machine and this program have them, and what they are.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where the driver lists the GPUs, a folder each.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// A device as it is named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Device {
    /// The processor.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl Device {
    /// Whether stages can use it; if not, why, and what to do.
    pub(crate) fn check(self) -> Result<(), String> {
        let Self::Cuda(number) = self else { return Ok(()) };
        match gpus().len() {
            0 => Err(format!("{self}: no NVIDIA driver is loaded here; use `--device cpu`")),
            count if number >= count => Err(format!("{self}: this machine has {count} GPUs, from cuda:0 on")),
            _ => match self.program() {
                Ok(program) if program.is_file() => Ok(()),
                Ok(program) => {
                    let advice = "`cargo install --path crates/runner --features cuda --bin runner-cuda` builds it";
                    Err(format!("{self}: there is no {}; {advice}", program.display()))
                }
                Err(error) => Err(format!("{self}: the runner's own file is not known: {error}")),
            },
        }
    }

    /// The program that executes stages on it: this one, or `runner-cuda` beside it.
    pub(crate) fn program(self) -> std::io::Result<PathBuf> {
        let own = std::env::current_exe()?;
        Ok(match self {
            Self::Cpu => own,
            Self::Cuda(_) => own.with_file_name(format!("runner-cuda{}", std::env::consts::EXE_SUFFIX)),
        })
    }

    /// What provenance says of it: `cpu`, or the GPU's model and driver.
    pub(crate) fn described(self) -> String {
        let Self::Cuda(number) = self else { return "cpu".to_owned() };
        let information = gpus().get(number).and_then(|gpu| fs::read_to_string(gpu.join("information")).ok());
        let model = information.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Model:")));
        let version = fs::read_to_string("/proc/driver/nvidia/version").ok();
        let driver = version.as_deref().and_then(|text| text.lines().next());
        format!("{}, {}", model.map_or("a GPU of unknown model", str::trim), driver.map_or("unknown driver", str::trim))
    }
}

/// The folders of the GPUs, in the order of their numbers on the bus.
fn gpus() -> Vec<PathBuf> {
    let mut gpus: Vec<PathBuf> = fs::read_dir(GPUS).into_iter().flatten().flatten().map(|gpu| gpu.path()).collect();
    gpus.sort();
    gpus
}

impl From<Device> for engine::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(number) => Self::Cuda(number),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => {
                let number = number.parse().map_err(|_| format!("`{number}` is not the number of a GPU; try `cuda:0`"));
                Ok(Self::Cuda(number?))
            }
            _ => Err("allowed are `cpu` and `cuda:N`, e.g. `cuda:0`".to_owned()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for (name, device) in [("cpu", Device::Cpu), ("cuda:0", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))] {
            assert_eq!(name.parse(), Ok(device));
            assert_eq!(device.to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CPU"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_processor_is_always_there_and_a_far_gpu_never() {
        assert_eq!(Device::Cpu.check(), Ok(()));
        assert!(Device::Cuda(999).check().unwrap_err().contains("cuda:999"));
    }
}
