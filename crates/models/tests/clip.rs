//! CLIP's tokenizer on the published vocabulary, which is not committed: these tests are ignored unless they are asked for, and
//! then fail without it (`src/clip` has tests on a small one). It is looked for under `$DMP_DATA`, then `../shared/datasets`. The
//! ids are those of transformers' fast tokenizer (4.57).

use std::fmt::Write as _;
use std::path::PathBuf;

use models::clip::Tokenizer;
use sha2::{Digest, Sha256};

const VOCABULARY: &str = "clip/bpe_simple_vocab_16e6.txt.gz";
const CAPTIONS: &str = "coco_captions_val2017.json.gz";

/// Of the ids of all 25,014 captions of COCO's validation set, four bytes each, little-endian, 77 a caption.
const CAPTIONS_SHA256: &str = "4c790aa1f7034aa86c478d4030fc131601bde032639a1f3b93a15acbfcfc3e30";

fn find(file: &str) -> PathBuf {
    let shared = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/datasets"));
    let folders = std::env::var_os("DMP_DATA").map(PathBuf::from).into_iter().chain([shared]);
    let mut paths = folders.map(|folder| folder.join(file));
    paths.find(|path| path.is_file()).unwrap_or_else(|| panic!("no {file} under $DMP_DATA"))
}

#[test]
#[ignore = "needs CLIP's vocabulary: `just test-published`"]
fn known_ids() {
    let tokenizer = Tokenizer::read(&find(VOCABULARY)).unwrap();
    assert_eq!((tokenizer.start(), tokenizer.end()), (49_406, 49_407));
    let known = include_str!("../../goldens/files/clip_tokens.json");
    let known: Vec<(String, Vec<u32>)> = serde_json::from_str(known).unwrap();
    assert!(known.len() >= 19);
    for (text, ids) in known {
        let ours = tokenizer.encode(&text, 77);
        let end = 1 + ours[1..].iter().position(|&id| id == tokenizer.end()).unwrap();
        assert_eq!(ours[1..end], ids, "{text:?}");
        assert_eq!((ours.len(), ours[0]), (77, tokenizer.start()));
        assert!(ours[end..].iter().all(|&id| id == tokenizer.end()));
    }
}

#[test]
#[ignore = "needs CLIP's vocabulary and COCO's captions: `just test-published`"]
fn every_caption_of_coco() {
    let tokenizer = Tokenizer::read(&find(VOCABULARY)).unwrap();
    let file = flate2::read::GzDecoder::new(std::fs::File::open(find(CAPTIONS)).unwrap());
    let captions: serde_json::Value = serde_json::from_reader(file).unwrap();
    let mut digest = Sha256::new();
    let captions = captions["annotations"].as_array().unwrap();
    assert_eq!(captions.len(), 25_014);
    for caption in captions {
        for id in tokenizer.encode(caption["caption"].as_str().unwrap(), 77) {
            digest.update(id.to_le_bytes());
        }
    }
    let hex = digest.finalize().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    assert_eq!(hex, CAPTIONS_SHA256);
}
