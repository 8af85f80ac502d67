//! `data::jpeg`, without the decoder that is tried after it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(image) = data::jpeg::decode(input) {
        assert_eq!(image.values.len(), 3 * image.width * image.height);
    }
});
