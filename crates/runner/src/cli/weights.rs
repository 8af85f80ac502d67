//! `runner weights` as typed.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Subcommand, ValueEnum};
use models::architecture::Architecture;

/// What to do with weights.
#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// List the weights of `experiments/published.yaml`, or the tensors of a file.
    #[command(after_help = "Examples:\n  runner weights list\n  runner weights list weights/DiT-XL-2-256x256.pt")]
    List {
        /// A file in any format that is read: safetensors, or PyTorch's.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Which state dict of a checkpoint that holds several.
        #[arg(long, value_name = "PART", requires = "file")]
        part: Option<String>,
    },
    /// Fetch weights to `$DMP_DATA`, or to the root. A call that was cut short goes on where it ended. Where no hash is pinned, it says what
    /// to download instead, and to where.
    #[command(after_help = "Example:\n  runner weights fetch inception")]
    Fetch {
        /// Names of weights, as `runner weights list` shows them.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Hold weights against their pinned hash, or a file against a network: which tensors are missing, unexpected, mis-shaped or not finite.
    /// Numbers are read where all tensors are there.
    #[command(
        after_help = "Examples:\n  runner weights check inception\n  runner weights check weights/DiT-XL-2-256x256.pt --as dit-xl2-imagenet\n  runner weights check checkpoint.pt --as dit-b2 --part ema"
    )]
    Check {
        /// Name of weights, or a file.
        #[arg(value_name = "NAME|FILE")]
        what: String,
        /// The network.
        #[arg(long = "as", value_name = "NETWORK", value_parser = architectures())]
        architecture: Option<Architecture>,
        /// Which state dict of a checkpoint that holds several.
        #[arg(long, value_name = "PART", requires = "architecture")]
        part: Option<String>,
    },
    /// Write weights in another format, under other names, as 32-bit floats.
    #[command(
        after_help = "Examples:\n  runner weights convert DiT-XL-2-256x256.pt dit-xl2.safetensors\n  runner weights convert v1-5-pruned-emaonly.safetensors vae.safetensors --as sd-vae\n  runner weights convert vae.safetensors vae.ckpt --as sd-vae --names original --into-part state_dict"
    )]
    Convert {
        /// The file to read.
        #[arg(value_name = "FROM")]
        input: PathBuf,
        /// The file to write: .safetensors, or .pt, .pth, .th, .ckpt, .bin.
        #[arg(value_name = "TO")]
        to: PathBuf,
        /// The network: its tensors are taken out of a checkpoint of several, and must be all there.
        #[arg(long = "as", value_name = "NETWORK", value_parser = architectures())]
        architecture: Option<Architecture>,
        /// Under which names the tensors are written.
        #[arg(long, value_enum, default_value_t = Names::Own, requires_if("original", "architecture"))]
        names: Names,
        /// Which state dict of a checkpoint that holds several.
        #[arg(long, value_name = "PART")]
        part: Option<String>,
        /// The key under which a PyTorch file keeps the tensors, e.g. `ema`.
        #[arg(long, value_name = "PART")]
        into_part: Option<String>,
    },
}

/// Names of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Names {
    /// Those that are used here: DiT's, diffusers', pytorch-fid's; without `--as` those of the file.
    Own,
    /// Those of the original Stable Diffusion checkpoints.
    Original,
}

/// Names of networks, all of which `--help` lists.
fn architectures() -> impl TypedValueParser<Value = Architecture> {
    PossibleValuesParser::new(Architecture::ALL.map(Architecture::name)).try_map(|name| name.parse::<Architecture>())
}
