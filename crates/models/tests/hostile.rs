//! Weight files made to harm: every one is refused with a reason, or read without what it wants to do.

use std::io::{Cursor, Write};
use std::path::Path;

use models::weights::{WeightFile, WeightsError};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn open(bytes: &[u8]) -> Result<WeightFile, WeightsError> {
    WeightFile::from_bytes(Path::new("hostile.pt"), bytes.to_vec(), None)
}

/// The whole message, which must name the file.
fn refusal(bytes: &[u8]) -> String {
    let message = match open(bytes) {
        Err(error) => error.to_string(),
        Ok(mut file) => file.read().expect_err("it was read").to_string(),
    };
    assert!(message.contains("hostile.pt"), "{message}");
    message
}

fn assert_refused(bytes: &[u8], reason: &str) {
    let message = refusal(bytes);
    assert!(message.contains(reason), "{message} lacks {reason}");
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn archive(pickle: &[u8]) -> Vec<u8> {
    zip(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])
}

/// A call that makes a tensor of 32-bit floats from storage 0.
fn tensor(offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ";
    [storage, offset, b"(", shape, b"t(", strides, b"t\x89}tR"].concat()
}

/// A state dict of one tensor `w`, and something behind.
fn state_dict(tensor: &[u8], more: &[u8]) -> Vec<u8> {
    [b"\x80\x02}X\x01\0\0\0w", tensor, b"s", more, b"."].concat()
}

const GOOD: (&[u8], &[u8], &[u8]) = (b"K\0", b"K\x02K\x02", b"K\x02K\x01");

fn good() -> Vec<u8> {
    tensor(GOOD.0, GOOD.1, GOOD.2)
}

/// `n` as an integer of eight bytes.
fn long(n: u64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &n.to_le_bytes()].concat()
}

#[test]
fn code_is_not_run_and_its_name_is_told() {
    let call = b"X\x01\0\0\0xcposix\nsystem\nX\x04\0\0\0true\x85Rs";
    let mut file = open(&archive(&state_dict(&good(), call))).unwrap();
    assert_eq!(file.skipped(), ["posix.system"]);
    assert_eq!(file.read().unwrap()["w"].shape, [2, 2]);
    assert_refused(&archive(b"\x80\x02cbuiltins\neval\nX\x03\0\0\x001+1\x85R."), "no tensors by name");
}

#[test]
fn no_more_than_1024_foreign_classes_are_told_by_name() {
    let classes = |count: usize| {
        let names: String = (0..count).map(|i| format!("cm\nn{i:04}\n")).collect();
        let list = [b"X\x01\0\0\0x](", names.as_bytes(), b"es"].concat();
        let mut file = open(&archive(&state_dict(&good(), &list))).unwrap();
        assert_eq!(file.read().unwrap().keys().collect::<Vec<_>>(), ["w"], "what is told changes nothing that is read");
        file.skipped().to_vec()
    };
    assert_eq!(classes(1024).len(), 1024);
    let told = classes(1100);
    assert_eq!((told.len(), told[0].as_str(), told[1023].as_str()), (1024, "m.n0000", "m.n1023"));
}

#[test]
fn programs_that_make_no_sense() {
    for (program, reason) in [
        (&b""[..], "it ends where 1 more bytes"),
        (b"\x80\x02", "it ends where 1 more bytes"),
        (b"\x80\x09N.", "protocol 9"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x02(.", "empty stack"),
        (b"\x80\x02N(\x85.", "too few values"),
        (b"\x80\x02Nt.", "a mark is missing"),
        (b"\x80\x02}(NuN.", "a key has no value"),
        (b"\x80\x02h\x07.", "nothing was stored under number 7"),
        (b"\x80\x02NNs.", "empty stack"),
        (b"\x80\x02NNNs.", "no container"),
        (b"\x80\x02)Na.", "no such container"),
        (b"\x80\x02I42\n.", "instruction 0x49"),
        (b"\x80\x02cos\nsystem", "it ends within a name"),
        (b"\x80\x02c\xff\n\xff\n.", "no UTF-8"),
        (b"\x80\x04NN\x93.", "no text"),
        (&[b"\x80\x02c", &b"m".repeat(1 << 10)[..], b"\nn\n."].concat(), "the name of a class has 1025 bytes"),
        (b"\x80\x02ccollections\nOrderedDict\n]NaR.", "no tensors"),
        (b"\x80\x02ccollections\nOrderedDict\n]Na\x85R.", "no pairs"),
        (b"\x80\x02K\x01.", "no tensors"),
    ] {
        assert_refused(&archive(program), reason);
    }
}

#[test]
fn containers_within_themselves() {
    assert_refused(&archive(b"\x80\x02]q\0h\0a."), "no tensors");
    let cycle = [b"\x80\x02}q\0X\x01\0\0\0w", &good()[..], b"sX\x01\0\0\0xh\0s."].concat();
    assert_eq!(open(&archive(&cycle)).unwrap().tensors().count(), 1);
    // A module that is its own module.
    let attributes = [b"}q\x01X\x0b\0\0\0_parameters}X\x01\0\0\0w", &good()[..], b"ssX\x08\0\0\0_modules"].concat();
    let module = [b"\x80\x02cm\nNet\n)\x81q\0", &attributes[..], b"}X\x01\0\0\0xh\0ssb."].concat();
    assert_refused(&archive(&module), "than any network");
    // A hundred thousand lists within each other.
    assert_refused(
        &archive(&[b"\x80\x02", &b"]".repeat(100_000)[..], &b"a".repeat(99_999), b"."].concat()),
        "no tensors",
    );
    // Thirty doublings by reference.
    let doublings = [b"\x80\x02}X\x01\0\0\0w", &good()[..], b"s", &b"q\0\x85h\0\x86".repeat(30), b"."].concat();
    assert_refused(&archive(&doublings), "no tensors");
}

#[test]
fn lengths_and_sizes_beyond_the_file() {
    assert_refused(&archive(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"), "more bytes are needed");
    assert_refused(&archive(b"\x80\x02T\xff\xff\xff\xff"), "more bytes are needed");
    assert_refused(&archive(b"\x80\x02\x8b\xff\xff\xff\xff"), "more bytes are needed");
    let many = [b"\x80\x02", &b"N".repeat(5_000_000)[..], b"."].concat();
    assert_refused(&archive(&many), "more than 4194304 values");

    let large = long(1 << 40);
    let all = long(u64::MAX >> 1);
    for (tensor, reason) in [
        (tensor(b"K\0", b"K\x05", b"K\x01"), "reach out of its storage of 16 bytes"),
        (tensor(b"K\x01", GOOD.1, GOOD.2), "reach out of its storage"),
        (tensor(b"K\0", GOOD.1, b"K\x01"), "2 axes and 1 strides"),
        (tensor(b"K\0", b"K\x03K\x03", &[&all[..], &all].concat()), "beyond all memory"),
        (tensor(&all, GOOD.1, GOOD.2), "beyond all memory"),
        (tensor(b"K\0", &[&all[..], &all].concat(), b"K\0K\0"), "beyond all memory"),
        (tensor(b"K\0", &large, b"K\0"), "1099511627776 elements in a file of"),
        (tensor(b"K\0", b"J\xff\xff\xff\xff", b"K\x01"), "-1 is no size"),
        (tensor(b"K\0", b"N", b"K\x01"), "no integer"),
        // A tuple of sizes that a thousand tensors share would be copied for each.
        (tensor(b"K\0", &b"K\x01".repeat(65), &b"K\x01".repeat(65)), "it has 65 axes"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R".to_vec(), "lacks arguments"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR".to_vec(), "no storage"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n)R".to_vec(), "_rebuild_sparse_tensor makes a kind of tensor"),
        (b"ctorch._utils\n_rebuild_parameter\n)R".to_vec(), "lacks arguments"),
    ] {
        assert_refused(&archive(&state_dict(&tensor, b"")), reason);
    }
    let missing = zip(&[("a/data.pkl", &state_dict(&good(), b""))]);
    assert_refused(&missing, "its zip entry a/data/0 is missing");
    // An empty tensor claims nothing.
    let empty = state_dict(&tensor(&large, b"K\0", b"K\x01"), b"");
    assert_eq!(open(&archive(&empty)).unwrap().read().unwrap()["w"].shape, [0]);
}

#[test]
fn archives_that_reach_out_or_grow() {
    let pickle = state_dict(&good(), b"");
    for name in ["../a/data/0", "/a/data/0", "a/../../data/0", "C:\\data\\0", "a/..\\..\\0"] {
        let bytes = zip(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 16]), (name, b"x")]);
        assert_refused(&bytes, "leaves the archive");
    }
    assert_refused(&zip(&[("b/other", b"x")]), "without one NAME/data.pkl");
    assert_refused(&zip(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle)]), "without one NAME/data.pkl");
    assert_refused(&zip(&[("a/data.pkl", &pickle), ("a/byteorder", b"big")]), "not little-endian");

    // A compressed storage: marked so in the local header and in the directory.
    let mut bytes = archive(&pickle);
    let method = |at: usize| at..at + 2;
    let last = |bytes: &[u8], magic: &[u8]| bytes.windows(4).rposition(|w| w == magic).unwrap();
    let (local, central) = (last(&bytes, b"PK\x03\x04"), last(&bytes, b"PK\x01\x02"));
    bytes[method(local + 8)].copy_from_slice(&[8, 0]);
    bytes[method(central + 10)].copy_from_slice(&[8, 0]);
    assert_refused(&bytes, "a/data/0 is compressed");

    // A storage that claims four gigabytes.
    let mut bytes = archive(&pickle);
    let central = last(&bytes, b"PK\x01\x02");
    bytes[central + 20..central + 28].copy_from_slice(&[0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff]);
    assert_refused(&bytes, "a/data/0 ends behind its last byte");

    let bytes = archive(&pickle);
    assert_refused(&bytes[..bytes.len() - 8], "zip archive");
}

#[test]
fn legacy_files_that_are_cut_or_lie() {
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let keys = b"\x80\x02]X\x01\0\0\x000a.";
    let storage = [&4u64.to_le_bytes()[..], &[0; 16]].concat();
    let whole = [magic, &state_dict(&good(), b"")[..], keys, &storage].concat();
    assert_eq!(open(&whole).unwrap().read().unwrap()["w"].values, [0.0; 4]);
    for cut in 0..whole.len() {
        refusal(&whole[..cut]);
    }
    let claim = |count: u64| [magic, &state_dict(&good(), b"")[..], keys, &count.to_le_bytes(), &[0; 16]].concat();
    for count in [5, 1 << 32, u64::MAX] {
        assert_refused(&claim(count), &format!("its storage 0 has {count} elements"));
    }
    assert_refused(&claim(3), "reach out of its storage of 12 bytes");
    assert_refused(b"\x80\x02}.", "not of torch.save");
    assert_refused(&[&magic[..14], b".\x80\x02K\x01."].concat(), "not 1001");
}

#[test]
fn safetensors_that_overlap_or_reach_out() {
    let file = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let entry = |name: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{from},{to}]}}"#)
    };
    let two = |a: (u64, u64), b: (u64, u64)| format!("{{{},{}}}", entry("a", a.0, a.1), entry("b", b.0, b.1));
    assert_eq!(open(&file(&two((0, 8), (8, 16)), 16)).unwrap().read().unwrap().len(), 2);
    assert_refused(&file(&two((0, 8), (4, 12)), 12), "offset");
    assert_refused(&file(&two((0, 8), (12, 20)), 20), "offset");
    assert_refused(&file(&two((0, 8), (8, 16)), 15), "its tensors end at byte");
    assert_refused(&file(&two((0, 8), (8, 16)), 17), "its tensors end at byte");
    assert_refused(&file(&two((8, 0), (8, 16)), 16), "header");
    assert_refused(&file(&two((0, 8), (8, u64::MAX)), 16), "header");
    let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#;
    assert_refused(&file(huge, 8), "header");
    // Together, the tensors end where 64 bits have ended long before.
    let most = u64::MAX >> 3;
    let byte = |i: u64| {
        let (from, to) = (i * most, i * most + most);
        format!(r#""{i}":{{"dtype":"U8","shape":[{most}],"data_offsets":[{from},{to}]}}"#)
    };
    let all: Vec<String> = (0..8).map(byte).collect();
    assert_refused(&file(&format!("{{{}}}", all.join(",")), 8), "its tensors end at byte 18446744073709551615");
    assert_refused(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "its header has");
    assert_refused(&[&90_000_000u64.to_le_bytes()[..], b"{}"].concat(), "it ends at byte 10");
    let part = WeightFile::from_bytes(Path::new("x"), file(&two((0, 8), (8, 16)), 16), Some("ema"));
    assert!(matches!(part, Err(WeightsError::Part { .. })));
}

#[test]
fn files_of_other_kinds_are_named() {
    assert_refused(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS");
    assert_refused(b"<!DOCTYPE html>", "a web page");
    assert_refused(&[&[b'x'; 257][..], b"ustar"].concat(), "tar archive");
    assert_refused(b"\x89PNG", "neither safetensors nor");
    assert_refused(b"", "neither safetensors nor");
}

#[test]
fn no_damage_of_one_byte_is_fatal() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    for name in ["checkpoint.th", "checkpoint-5.pt", "views.pt", "views-legacy.pt"] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        for place in 0..bytes.len() {
            for flipped in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] ^= flipped;
                // Any answer is right but a panic or a large allocation.
                if let Ok(mut file) = open(&damaged) {
                    file.read().ok();
                }
            }
        }
    }
}
