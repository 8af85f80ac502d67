//! `runner export` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What is written.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// Its samples as ADM's evaluator reads them: .npz, `arr_0`, unsigned bytes [n, side, side, 3]. Latents are decoded.
    #[command(after_help = "Example:\n  runner export samples table4:b/hard samples.npz --seeds 0")]
    Samples(Export),
    /// Mean and covariance of its samples' features as pytorch-fid reads them: .npz, `mu`, `sigma`; Inception's spatial ones too, as ADM
    /// names them: `mu_s`, `sigma_s`.
    #[command(after_help = "Example:\n  runner export statistics table4:b/hard statistics.npz --seeds 0")]
    Statistics(Export),
    /// Its backbone and patch as the authors' PyTorch code loads them: .pt (or .safetensors), and the expression that builds their class.
    #[command(after_help = "Example:\n  runner export patch table4:b/soft dmp.pt --seeds 0")]
    Patch(Export),
}

/// Of what, and where to.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Cell: `b/hard`, or with its artifact `table4:b/hard`. It has run; of several seeds `--seeds` says which.
    #[arg(value_name = "CELL")]
    pub(crate) cell: String,
    /// The file to write.
    #[arg(value_name = "TO")]
    pub(crate) to: PathBuf,
}
