//! Archives of arrays: what is written is read, and what is damaged, lies or is hostile is refused with its reason.

use std::io::{Cursor, Write};

use metrics::Gaussian;
use metrics::npz::{Archive, Dtype, NpzError, Statistics, Storage, Writer};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const STORAGES: [Storage; 2] = [Storage::Stored, Storage::Deflated];

type Bytes = Cursor<Vec<u8>>;

fn archive(bytes: Vec<u8>) -> Result<Archive<Bytes>, NpzError> {
    Archive::new(Cursor::new(bytes))
}

/// `mu` `[3]` (f64), `sigma` `[3, 3]` (f32) and `arr_0` `[5, 2, 2]` (u8).
fn sample(storage: Storage) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), storage);
    writer.array("mu", &[3], &[0.5, -1.0, 1e-300]).unwrap();
    writer.array("sigma", &[3, 3], &[2.0_f32, 0.1, 0.2, 0.1, 3.0, 0.3, 0.2, 0.3, 4.0]).unwrap();
    writer.array("arr_0", &[5, 2, 2], &(0..20).map(|i| 12 * i).collect::<Vec<u8>>()).unwrap();
    writer.finish().unwrap().into_inner()
}

/// A .npy file.
fn npy(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let length = (dictionary.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, dictionary.as_bytes(), data].concat()
}

fn dictionary(descr: &str, order: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
}

/// An archive of entries as they are given.
fn zipped(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::DEFAULT.compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn stored(name: &str, bytes: &[u8]) -> Vec<u8> {
    zipped(&[(name, bytes)], CompressionMethod::Stored)
}

/// Reads all of one array.
fn values(bytes: Vec<u8>, name: &str) -> Result<Vec<f64>, NpzError> {
    archive(bytes)?.array(name)?.values()
}

#[test]
fn what_is_written_is_read() {
    for storage in STORAGES {
        let mut archive = archive(sample(storage)).unwrap();
        assert_eq!(archive.names(), ["arr_0", "mu", "sigma"]);
        let mu = archive.array("mu").unwrap();
        assert_eq!((mu.dtype(), mu.shape(), mu.is_fortran()), (Dtype::F64, &[3][..], false));
        assert_eq!(mu.values().unwrap(), [0.5, -1.0, 1e-300]);
        let sigma = archive.array("sigma").unwrap().values().unwrap();
        assert_eq!(sigma[1], f64::from(0.1_f32), "widened exactly");
        // Images one after the other.
        let mut images = archive.array("arr_0").unwrap();
        for number in 0..5_u8 {
            let mut image = [0_u8; 4];
            images.fill(&mut image).unwrap();
            assert_eq!(image, [0, 12, 24, 36].map(|v| v + 48 * number));
        }
        let error = images.fill(&mut [0_u8]).unwrap_err();
        assert_eq!(error.to_string(), "array `arr_0` has 0 values left, not 1");
        drop(images);
        let error = archive.array("arr_0").unwrap().fill(&mut [0.0_f32]).unwrap_err();
        assert_eq!(error.to_string(), "array `arr_0` holds |u1, not <f4");
        assert_eq!(sample(storage), sample(storage), "the same bytes each time");
    }
}

#[test]
fn empty_arrays_and_single_values() {
    let mut writer = Writer::new(Cursor::new(Vec::new()), Storage::Stored);
    writer.array("none", &[0, 4], &[0.0_f64; 0]).unwrap();
    writer.array("one", &[], &[7.5_f64]).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    assert_eq!(values(bytes.clone(), "none").unwrap(), [0.0; 0]);
    assert_eq!(values(bytes, "one").unwrap(), [7.5]);
}

/// More than one chunk, in every type.
#[test]
fn long_arrays_are_read_in_chunks() {
    let many: Vec<f64> = (0..100_003).map(|i| f64::from(i) * 0.25).collect();
    let single: Vec<f32> = many.iter().map(|&v| v as f32).collect();
    let bytes: Vec<u8> = many.iter().map(|&v| (4.0 * v) as u32 as u8).collect();
    for storage in STORAGES {
        let mut writer = Writer::new(Cursor::new(Vec::new()), storage);
        writer.array("f64", &[many.len()], &many).unwrap();
        writer.array("f32", &[many.len()], &single).unwrap();
        writer.array("u8", &[many.len()], &bytes).unwrap();
        let mut archive = archive(writer.finish().unwrap().into_inner()).unwrap();
        assert_eq!(archive.array("f64").unwrap().values().unwrap(), many);
        assert_eq!(archive.array("f32").unwrap().values().unwrap(), many);
        let mut read = vec![0_u8; many.len()];
        archive.array("u8").unwrap().fill(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
}

#[test]
fn fortran_order_is_turned() {
    let shape = dictionary("|u1", "True", "(2, 3)");
    assert_eq!(
        values(stored("a.npy", &npy(&shape, &[0, 3, 1, 4, 2, 5])), "a").unwrap(),
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    );
    // Element (i, j, k) is 100 i + 10 j + k, the first index fastest.
    let sides =
        |f: &mut dyn FnMut(u8, u8, u8)| (0..4).for_each(|k| (0..3).for_each(|j| (0..2).for_each(|i| f(i, j, k))));
    let mut data = Vec::new();
    sides(&mut |i, j, k| data.push(100 * i + 10 * j + k));
    let cube = npy(&dictionary("|u1", "True", "(2, 3, 4)"), &data);
    let mut expected = Vec::new();
    (0..2).for_each(|i| (0..3).for_each(|j| (0..4).for_each(|k| expected.push(f64::from(100 * i + 10 * j + k)))));
    assert_eq!(values(stored("a.npy", &cube), "a").unwrap(), expected);
}

#[test]
fn statistics_make_a_round_trip() {
    let covariance = [2.0, 0.1, 0.2, 0.1, 3.0, 0.3, 0.2, 0.3, 4.0];
    let gaussian = Gaussian::from_moments(vec![0.5, -1.0, 2.0], &covariance).unwrap();
    for storage in STORAGES {
        let mut writer = Writer::new(Cursor::new(Vec::new()), storage);
        Statistics::Pooled.write(&mut writer, &gaussian).unwrap();
        Statistics::Spatial.write(&mut writer, &gaussian).unwrap();
        let mut archive = archive(writer.finish().unwrap().into_inner()).unwrap();
        assert_eq!(archive.names(), ["mu", "mu_s", "sigma", "sigma_s"]);
        for statistics in [Statistics::Pooled, Statistics::Spatial] {
            let read = statistics.read(&mut archive).unwrap();
            assert_eq!((read.mean(), read.covariance()), (gaussian.mean(), gaussian.covariance()));
        }
    }
}

#[test]
fn statistics_of_other_shapes_are_refused() {
    let refused = |mu: &[usize], sigma: &[usize], value: f64| {
        let mut writer = Writer::new(Cursor::new(Vec::new()), Storage::Stored);
        writer.array("mu", mu, &vec![0.0; mu.iter().product()]).unwrap();
        writer.array("sigma", sigma, &vec![value; sigma.iter().product()]).unwrap();
        let mut archive = archive(writer.finish().unwrap().into_inner()).unwrap();
        Statistics::Pooled.read(&mut archive).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&[3], &[3], 0.0),
        "array `sigma` has shape [3], expected [3, 3], the number of features in `mu` twice"
    );
    assert!(refused(&[3], &[4, 4], 0.0).contains("expected [3, 3]"));
    assert_eq!(
        refused(&[1, 3], &[3, 3], 0.0),
        "array `mu` has shape [1, 3], expected one side, the number of features"
    );
    assert!(
        refused(&[2], &[2, 2], f64::NAN).starts_with("arrays `mu` and `sigma`: covariance at row 0, column 0 is NaN")
    );
    assert!(refused(&[0], &[0, 0], 0.0).starts_with("arrays `mu` and `sigma`"));
    let error = Statistics::Spatial.read(&mut archive(sample(Storage::Stored)).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "there is no array `mu_s`; there are: arr_0, mu, sigma");
}

#[test]
fn headers_that_promise_what_is_not_there_are_refused() {
    for (shape, data) in [
        ("(536870912,)", &[0_u8; 16][..]),
        ("(3,)", &[0; 11]),
        ("(3,)", &[0; 13]),
        ("(4294967296, 4294967296, 4294967296)", &[0; 16]),
        ("(0,)", &[0; 4]),
        ("(1,)", &[]),
    ] {
        let file = npy(&dictionary("<f4", "False", shape), data);
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let error = values(zipped(&[("a.npy", &file)], method), "a").unwrap_err();
            assert!(matches!(error, NpzError::Length { .. }), "{shape}: {error}");
            assert!(error.to_string().contains(&format!("archive holds {} bytes", file.len())), "{error}");
        }
    }
}

/// The archive's own directory joins in the lie: header and directory promise 4 GiB, the file has 16 bytes.
#[test]
fn directories_that_lie_are_found_out_when_the_data_ends() {
    let file = npy(&dictionary("<f4", "False", "(1073741792,)"), &[1; 16]);
    let mut bytes = stored("a.npy", &file);
    let lie = (file.len() as u32 - 16 + 4 * 1_073_741_792_u32).to_le_bytes();
    let truth = (file.len() as u32).to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|&i| bytes[i..i + 4] == truth).collect();
    assert!(places.len() >= 4, "both sizes, in the local header and in the directory");
    for place in places {
        bytes[place..place + 4].copy_from_slice(&lie);
    }
    let mut archive = match archive(bytes) {
        Ok(archive) => archive,
        Err(error) => return assert!(matches!(error, NpzError::Archive(_)), "{error}"),
    };
    let mut first = [0.0_f32; 64];
    let error = archive.array("a").and_then(|mut array| array.fill(&mut first)).unwrap_err();
    assert!(matches!(error, NpzError::Read { .. } | NpzError::Archive(_)), "{error}");
    let error = archive.array("a").and_then(|array| array.values()).unwrap_err();
    assert!(matches!(error, NpzError::TooLarge { .. } | NpzError::Archive(_)), "{error}");
}

/// Zeros deflate a thousandfold: an honest archive of 2 GiB in 2 MiB is streamed, but not read at once.
#[test]
fn what_inflates_beyond_the_limit_is_streamed_only() {
    let values = (1_u64 << 27) + 1;
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("a.npy", SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Deflated)).unwrap();
    zip.write_all(&npy(&dictionary("|u1", "False", &format!("({values},)")), &[])).unwrap();
    let zeros = vec![0; 1 << 20];
    let mut left = values as usize;
    while left > 0 {
        let part = left.min(zeros.len());
        zip.write_all(&zeros[..part]).unwrap();
        left -= part;
    }
    let bytes = zip.finish().unwrap().into_inner();
    assert!(bytes.len() < 1 << 20);
    let mut archive = archive(bytes).unwrap();
    let error = archive.array("a").unwrap().values().unwrap_err();
    assert_eq!(
        error.to_string(),
        "array `a` has 134217729 values, more than the 134217728 that are read at once: stream it"
    );
    archive.array("a").unwrap().fill(&mut [0_u8; 100]).unwrap();
}

#[test]
fn pickles_are_not_loaded() {
    let pickle = npy(&dictionary("|O", "False", "(1,)"), b"cos\nsystem\n(S'true'\ntR.");
    let error = values(stored("mu.npy", &pickle), "mu").unwrap_err();
    assert!(matches!(error, NpzError::Pickle { .. }) && error.to_string().contains("never loaded"), "{error}");
}

#[test]
fn paths_are_refused() {
    let file = npy(&dictionary("|u1", "False", "(1,)"), &[1]);
    for name in ["../mu.npy", "a/mu.npy", "/etc/mu.npy", "C:mu.npy", "..", "a\\mu.npy"] {
        let error = archive(stored(name, &file)).err().expect("refused");
        assert!(matches!(error, NpzError::Path { .. } | NpzError::Archive(_)), "{name}: {error}");
    }
    // Other files in an archive are no arrays.
    let bytes = zipped(&[("mu.npy", &file), ("readme.txt", b"hello")], CompressionMethod::Stored);
    assert_eq!(archive(bytes).unwrap().names(), ["mu"]);
}

#[test]
fn every_cut_is_noticed() {
    for storage in STORAGES {
        let whole = sample(storage);
        for end in 0..whole.len() {
            assert!(archive(whole[..end].to_vec()).is_err(), "{storage:?}: {end} of {} bytes", whole.len());
        }
    }
}

/// A flipped bit is an error or changes nothing that is read.
#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    for storage in STORAGES {
        let whole = sample(storage);
        let read = |bytes: Vec<u8>| -> Result<Vec<Vec<f64>>, NpzError> {
            let mut archive = archive(bytes)?;
            ["mu", "sigma", "arr_0"].iter().map(|name| archive.array(name)?.values()).collect()
        };
        let expected = read(whole.clone()).unwrap();
        let mut noticed = 0;
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match read(bytes) {
                Ok(values) => assert_eq!(values, expected, "{storage:?}: bit {bit}"),
                Err(_) => noticed += 1,
            }
        }
        assert!(noticed > 4 * whole.len(), "{storage:?}: {noticed} of {}", 8 * whole.len());
    }
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"hello", b"\x93NUMPY\x01\x00", b"PK\x03\x04"] {
        let error = archive(bytes.to_vec()).err().expect("refused");
        assert!(error.to_string().starts_with("no sound .npz (zip) archive"), "{error}");
    }
    let error = Archive::open(std::path::Path::new("no/such/file.npz")).err().expect("refused");
    assert!(error.to_string().starts_with("no sound .npz"), "{error}");
    let error = values(stored("mu.npy", b"no array"), "mu").unwrap_err();
    assert!(error.to_string().contains("does not begin as one"), "{error}");
}
