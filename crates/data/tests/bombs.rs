//! Headers that promise more than anyone has: refused before memory is taken for them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use data::folder;

/// The largest single allocation so far, in bytes.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which notes sizes.
struct Noting;

// SAFETY: everything is the system's.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// CRC-32 as PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// An image of `tests/images` whose header says that it is a square of so many pixels a side.
fn huge(name: &str, side: u32) -> Vec<u8> {
    let mut bytes = fs::read(format!("{}/tests/images/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    match name.rsplit_once('.').unwrap().1 {
        "bmp" => {
            bytes[18..22].copy_from_slice(&side.to_le_bytes());
            bytes[22..26].copy_from_slice(&side.to_le_bytes());
        }
        "png" => {
            bytes[16..20].copy_from_slice(&side.to_be_bytes());
            bytes[20..24].copy_from_slice(&side.to_be_bytes());
            let sum = crc(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        }
        "jpg" => {
            let frame = bytes.windows(2).position(|pair| pair[0] == 0xff && matches!(pair[1], 0xc0 | 0xc2)).unwrap();
            bytes[frame + 5..frame + 7].copy_from_slice(&(side as u16).to_be_bytes());
            bytes[frame + 7..frame + 9].copy_from_slice(&(side as u16).to_be_bytes());
        }
        "webp" => {
            // The canvas of the extended format, less one.
            assert_eq!(&bytes[12..16], b"VP8X");
            bytes[24..27].copy_from_slice(&(side - 1).to_le_bytes()[..3]);
            bytes[27..30].copy_from_slice(&(side - 1).to_le_bytes()[..3]);
        }
        other => panic!("no header of {other} is known"),
    }
    bytes
}

#[test]
fn a_header_of_too_many_pixels_costs_no_memory() {
    let names =
        ["plain.bmp", "palette.png", "animated.png", "plain.jpg", "progressive.jpg", "cmyk.jpg", "animated.webp"];
    let too_wide = names.map(|name| (name, 60_000));
    // A byte a pixel, which the decoder's limit allows, but three in RGB.
    for (name, side) in too_wide.into_iter().chain([("palette.png", 16_384), ("grey.jpg", 16_384)]) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), huge(name, side)).unwrap();
        let photographs = folder::open(folder.path(), 32).unwrap();
        LARGEST.store(0, Ordering::Relaxed);
        let message = photographs.load().unwrap_err().to_string();
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(message.contains(name) && message.to_lowercase().contains("limit"), "{message}");
        assert!(largest < 1 << 20, "{name}: {largest} bytes at once");
    }
}
