//! `models::weights`: a file of any format that is recognised by its first bytes (PyTorch's zip archives and legacy files,
//! safetensors), opened and read.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use models::weights::WeightFile;

fuzz_target!(|input: &[u8]| {
    let Ok(mut file) = WeightFile::from_bytes(Path::new("x.pt"), input.to_vec(), None) else { return };
    if let Ok(weights) = file.read() {
        for tensor in weights.values() {
            // The other sides of an empty tensor may be of any size.
            let promised = if tensor.shape.contains(&0) { 0 } else { tensor.shape.iter().product() };
            assert_eq!(tensor.values.len(), promised);
        }
    }
});
