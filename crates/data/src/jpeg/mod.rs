//! JPEG to RGB bytes, bit for bit as libjpeg-turbo decodes it, and so Pillow, PyTorch and whoever publishes a reference.
//!
//! Decoders are free in how they round (ITU-T T.81 says how far), and two that are allowed to differ make a Frechet distance
//! differ in the third digit. So the inverse transform, the interpolation of colour and the conversion to RGB are libjpeg's, in
//! its integers: `jidctint.c` (13 bits), `jdsample.c` ("fancy": triangle filters), `jdcolor.c` (16 bits).
//!
//! Baseline and progressive Huffman coding of 8 bits, grey or three channels. What else there is, and what is damaged, is left to
//! another decoder.

mod frame;
mod huffman;
mod planes;
mod scan;
mod transform;

use crate::decode::{MAX_PIXELS, MAX_SIDE};
use crate::resample::Raster;
use frame::{Colour, Frame, Segments};
use scan::Scan;

/// Most scans of an image; encoders write about ten. A scan of nothing costs a few bytes, and all blocks' time.
const MAX_SCANS: usize = 100;

/// Decodes a file; `None` where it is damaged or of a kind that is not read here. The header's word on the size is believed only
/// where the file is long enough for it: a block of 64 coefficients is coded by a bit at least.
pub fn decode(bytes: &[u8]) -> Option<Raster<u8>> {
    let mut segments = Segments::new(bytes)?;
    let (mut frame, mut scans) = (None, 0);
    loop {
        match segments.next_marker()? {
            0xc0..=0xc2 if frame.is_none() => {
                let found = Frame::read(&mut segments)?;
                let (sides, pixels) = ([found.width, found.height], (found.width * found.height) as u64);
                let too_large = pixels > MAX_PIXELS || sides.iter().any(|&side| side > MAX_SIDE as usize);
                if too_large || found.blocks() > 8 * bytes.len() {
                    return None;
                }
                frame = Some(found.allocated());
            }
            0xda => {
                let frame = frame.as_mut().filter(|_| scans < MAX_SCANS)?;
                scans += 1;
                let scan = Scan::read(&mut segments, frame)?;
                let coded = scan.decode(&segments, frame)?;
                segments.skip(coded);
            }
            0xd9 => break,
            marker => segments.read(marker)?,
        }
    }
    let frame = frame.filter(|_| scans > 0)?;
    let (width, height, colour) = (frame.width, frame.height, segments.colour(&frame));
    let planes = planes::Planes::of(frame, &segments.quantisation)?;
    let mut values = vec![0; 3 * width * height];
    for (y, row) in values.chunks_exact_mut(3 * width).enumerate() {
        match colour {
            Colour::Grey => {
                let [grey] = planes.row(y);
                row.chunks_exact_mut(3).zip(grey).for_each(|(rgb, v)| rgb.fill(v));
            }
            Colour::Rgb | Colour::YCbCr => {
                let [a, b, c] = planes.row(y);
                for (rgb, ((a, b), c)) in row.chunks_exact_mut(3).zip(a.into_iter().zip(b).zip(c)) {
                    rgb.copy_from_slice(&if colour == Colour::Rgb { [a, b, c] } else { planes::rgb(a, b, c) });
                }
            }
        }
    }
    Some(Raster { width, height, channels: 3, values })
}
