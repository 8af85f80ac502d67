//! `metrics::npz`: numpy's archives, every array of one and the mean and covariance.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use metrics::npz::{Archive, Statistics};

fuzz_target!(|input: &[u8]| {
    let Ok(mut archive) = Archive::new(Cursor::new(input)) else { return };
    for name in archive.names() {
        if let Ok(array) = archive.array(&name) {
            let promised: u64 = array.shape().iter().product();
            if let Ok(values) = array.values() {
                assert_eq!(values.len() as u64, promised);
            }
        }
    }
    Statistics::Pooled.read(&mut archive).ok();
});
