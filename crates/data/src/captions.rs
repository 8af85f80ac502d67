//! Captions as COCO publishes them (`captions_val2017.json`, plain or gzip) beside a folder of their images.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::gzip::{self, broken};
use crate::photographs::{Photographs, Place};
use crate::{Error, Result};

/// Largest file of captions, unpacked, in bytes: ten times COCO's training set.
const MAX_JSON: u64 = 1 << 30;

/// What is read of the file.
#[derive(Deserialize)]
struct Captions {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: PathBuf,
}

#[derive(Deserialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    caption: String,
}

/// The images that `captions` names below `folder`, sorted by path, each with its first caption: the one with the lowest
/// id (COCO has five of each). Other files of the folder are passed over.
///
/// # Errors
/// A file that is missing, no such JSON, or damaged; an image without a caption, a caption without an image; an image
/// that is named twice, is not in the folder, or lies outside of it.
pub fn open(captions: &Path, folder: &Path, side: usize) -> Result<Photographs> {
    let Captions { images, annotations } = read(captions)?;
    let format = |reason: String| Error::format(captions, reason);
    if !folder.metadata().map_err(|e| Error::io(folder, e))?.is_dir() {
        return Err(Error::NotAFolder { path: folder.to_owned() });
    }
    if images.is_empty() {
        return Err(format("names no image".to_owned()));
    }
    let mut firsts: BTreeMap<u64, Option<(u64, String)>> = images.iter().map(|image| (image.id, None)).collect();
    if firsts.len() < images.len() {
        return Err(format(format!("gives {} images {} ids", images.len(), firsts.len())));
    }
    for Annotation { id, image_id, caption } in annotations {
        let Some(first) = firsts.get_mut(&image_id) else {
            return Err(format(format!("caption {id} is of image {image_id}, which the file does not name")));
        };
        if first.as_ref().is_none_or(|(known, _)| id < *known) {
            *first = Some((id, caption));
        }
    }
    let mut named = BTreeMap::new();
    let mut missing = Vec::new();
    for Image { id, file_name } in images {
        if !file_name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format(format!("image {id} is called {}, outside of the folder", file_name.display())));
        }
        let Some((_, caption)) = firsts.remove(&id).flatten() else {
            return Err(format(format!("image {id} ({}) has no caption", file_name.display())));
        };
        if !folder.join(&file_name).is_file() {
            missing.push(file_name.clone());
        }
        if let Some(twice) = named.insert(file_name, caption).map(|_| id) {
            return Err(format(format!("image {twice} has the file of another image")));
        }
    }
    if let Some(first) = missing.iter().min() {
        let reason = format!(
            "lacks {} of the {} images that {} has captions for, first {}; put them there, or take the captions of \
             the images that are there",
            missing.len(),
            named.len(),
            captions.display(),
            first.display()
        );
        return Err(Error::request(folder, reason));
    }
    let places = named.keys().map(|name| Place::File(folder.join(name))).collect();
    let captions = Some(named.into_values().collect());
    Ok(Photographs { captions, ..Photographs::plain(side, places, 0) })
}

fn read(path: &Path) -> Result<Captions> {
    let text = std::io::BufReader::new(gzip::open(path)?.take(MAX_JSON));
    serde_json::from_reader(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Io => broken(path, error.into()),
        _ => Error::format(path, format!("is no file of captions as COCO's, of at most 1 GiB: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use image::{Rgb, RgbImage};
    use std::fs;
    use std::io::Write;

    const IMAGES: &str =
        r#""images": [{"id": 7, "file_name": "b.png", "height": 4}, {"id": 5, "file_name": "sub/a.png"}]"#;
    const CAPTIONS: &str = r#""annotations": [{"id": 31, "image_id": 7, "caption": "later"},
        {"id": 30, "image_id": 7, "caption": "a \"bee\""}, {"id": 2, "image_id": 5, "caption": "an ant"}]"#;

    /// A folder `images` with both images, and a file `captions.json`.
    fn folder(json: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("images/sub")).unwrap();
        for (name, value) in [("b.png", 2), ("sub/a.png", 1), ("other.png", 3)] {
            RgbImage::from_pixel(4, 4, Rgb([value; 3])).save(folder.path().join("images").join(name)).unwrap();
        }
        fs::write(folder.path().join("captions.json"), json).unwrap();
        folder
    }

    fn open_in(folder: &tempfile::TempDir) -> Result<Photographs> {
        open(&folder.path().join("captions.json"), &folder.path().join("images"), 4)
    }

    #[test]
    fn each_image_has_its_first_caption_in_the_order_of_the_names() {
        let json = format!("{{\"info\": {{\"year\": 1}}, {IMAGES}, {CAPTIONS}}}");
        let plain = folder(&json);
        let images = open_in(&plain).unwrap().load().unwrap();
        assert_eq!(images.captions.as_deref().unwrap(), ["a \"bee\"", "an ant"]);
        assert_eq!((images.image(0)[0], images.image(1)[0]), (2, 1));

        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(json.as_bytes()).unwrap();
        let bytes = gzip.finish().unwrap();
        fs::write(plain.path().join("captions.json"), &bytes).unwrap();
        assert_eq!(open_in(&plain).unwrap().load().unwrap(), images);
        fs::write(plain.path().join("captions.json"), &bytes[..bytes.len() / 2]).unwrap();
        let message = open_in(&plain).unwrap_err().to_string();
        assert!(message.contains("truncated"), "{message}");
    }

    #[test]
    fn captions_for_missing_images_are_counted_and_the_first_is_named() {
        let there = folder(&format!("{{{IMAGES}, {CAPTIONS}}}"));
        fs::remove_file(there.path().join("images/sub/a.png")).unwrap();
        let message = open_in(&there).unwrap_err().to_string();
        for part in ["images: lacks 1 of the 2 images", "captions.json", "first sub/a.png"] {
            assert!(message.contains(part), "{message}");
        }
        fs::remove_dir_all(there.path().join("images")).unwrap();
        assert!(open_in(&there).unwrap_err().to_string().contains("not found"));
    }

    #[test]
    fn files_that_do_not_join_say_where() {
        let two = |a: &str, b: &str| {
            format!(r#""images": [{{"id": 7, "file_name": "{a}"}}, {{"id": 5, "file_name": "{b}"}}]"#)
        };
        for (json, wanted) in [
            (format!("{{{IMAGES}}}"), "annotations"),
            ("[]".to_owned(), "no file of captions"),
            (format!("{{{IMAGES}, {CAPTIONS}"), "line 2"),
            (format!(r#"{{"images": [], {CAPTIONS}}}"#), "names no image"),
            (
                format!(r#"{{{IMAGES}, "annotations": [{{"id": 1, "image_id": 7, "caption": "x"}}]}}"#),
                "image 5 (sub/a.png) has no caption",
            ),
            (
                format!(r#"{{{IMAGES}, "annotations": [{{"id": 1, "image_id": 9, "caption": "x"}}]}}"#),
                "caption 1 is of image 9",
            ),
            (format!("{{{}, {CAPTIONS}}}", two("b.png", "b.png")), "the file of another image"),
            (format!("{{{}, {CAPTIONS}}}", two("b.png", "../b.png")), "outside of the folder"),
            (format!("{{{}, {CAPTIONS}}}", two("b.png", "/etc/passwd")), "outside of the folder"),
            (format!("{{{}, {CAPTIONS}}}", IMAGES.replace('5', "7")), "2 images 1 ids"),
        ] {
            let message = open_in(&folder(&json)).unwrap_err().to_string();
            assert!(message.contains("captions.json") && message.contains(wanted), "{message}");
        }
    }
}
