//! `models::weights` behind the three pickles that every legacy file of PyTorch begins with: the input is the pickle of the
//! object, the names of its storages, and these.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use models::weights::WeightFile;

/// The magic number, version 1001 and an empty dict of facts about the machine.
const START: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";

fuzz_target!(|input: &[u8]| {
    let bytes = [START, input].concat();
    let Ok(mut file) = WeightFile::from_bytes(Path::new("x.th"), bytes, None) else { return };
    file.read().ok();
});
