//! Writing files whole or not at all, and their hashes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::WeightsError;

/// SHA-256 of `bytes`, in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `bytes` to `path` so that a reader sees the old file or all of the new one, also after a crash.
///
/// # Errors
/// The file system's, with the path; what was written so far is removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// The same for what `write` writes.
///
/// # Errors
/// As [`write_atomically`], and those of `write`.
pub fn write_atomically_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), WeightsError> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_file_name(format!(".{name}.{}-{number}.partial", std::process::id()));
    let written = (|| {
        let mut file = File::create(&partial)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It may not exist; the first error is the one to report.
        fs::remove_file(&partial).ok();
    }
    written.map_err(WeightsError::io(path, "write"))
}
