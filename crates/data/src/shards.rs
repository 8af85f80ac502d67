//! WebDataset: tar archives ("shards") of images and captions that share a name, `000000012.jpg` and `000000012.txt`, as
//! img2dataset writes LAION.
//!
//! A shard is read where it lies; nothing is unpacked. What an archive could do when unpacked (leave its folder, link to
//! other files) is refused all the same: such a shard was not made by a tool that makes shards.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::decode::MAX_FILE;
use crate::folder::{is_hidden, is_image};
use crate::photographs::{Photographs, Place, read_range};
use crate::{Error, Result};

/// Longest caption, in bytes.
const MAX_CAPTION: u64 = 1 << 16;

/// Longest name that is written beside an entry, in bytes.
const MAX_NAME: u64 = 1 << 12;

/// Where a file lies in a shard: its name, first byte and length.
struct Member {
    name: PathBuf,
    start: u64,
    bytes: u64,
}

/// One name: its image and its caption.
#[derive(Default)]
struct Pair {
    image: Option<Place>,
    caption: Option<String>,
}

/// The images of a shard, or of all shards (`*.tar`) of a folder, in the order of the shards' and their own names, each
/// with its caption. Files that are neither images nor captions (`.json`) are passed over.
///
/// # Errors
/// A shard that is missing, damaged or cut short, is compressed as a whole, or holds a link, a name that leads out of it,
/// an image without a caption or a caption without an image, the same name twice, or a file that is too large; no image.
pub fn open(shards: &Path, side: usize) -> Result<Photographs> {
    let (mut places, mut captions, mut ignored) = (Vec::new(), Vec::new(), 0);
    for shard in list(shards)? {
        for (name, pair) in pairs(&shard, &mut ignored)? {
            let lacks = |what| Error::format(&shard, format!("{} has no {what}", name.display()));
            places.push(pair.image.ok_or_else(|| lacks("image"))?);
            captions.push(pair.caption.ok_or_else(|| lacks("caption"))?);
        }
    }
    if places.is_empty() {
        return Err(Error::NoImages { path: shards.to_owned(), ignored });
    }
    Ok(Photographs { captions: Some(captions), ..Photographs::plain(side, places, ignored) })
}

/// The images of one archive, whatever lies beside them, sorted by name.
///
/// # Errors
/// As [`open`], but for captions, of which none is read.
pub(crate) fn open_images(archive: &Path, side: usize) -> Result<Photographs> {
    let mut members = members(archive)?;
    members.retain(|member| !member.is_hidden());
    let all = members.len();
    members.retain(|member| is_image(&member.name));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let ignored = all - members.len();
    if let Some(twice) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::format(archive, format!("{} has the name of another file", twice[0].called())));
    }
    let shard: Arc<Path> = archive.into();
    let places = members.into_iter().map(|member| member.image(&shard)).collect::<Result<Vec<_>>>()?;
    match places.is_empty() {
        true => Err(Error::NoImages { path: archive.to_owned(), ignored }),
        false => Ok(Photographs::plain(side, places, ignored)),
    }
}

/// Whether a file has the name of a tar archive.
pub(crate) fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tar"))
}

impl Member {
    fn is_hidden(&self) -> bool {
        self.name.components().any(|part| is_hidden(part.as_os_str()))
    }

    /// What messages call it.
    fn called(&self) -> String {
        format!("{} ({} bytes)", self.name.display(), self.bytes)
    }

    /// Its place, as an image.
    fn image(&self, shard: &Arc<Path>) -> Result<Place> {
        if self.bytes > MAX_FILE {
            return Err(Error::format(shard, format!("{} is larger than any photograph", self.called())));
        }
        let (name, start, bytes) = (self.name.display().to_string(), self.start, self.bytes);
        Ok(Place::Member { shard: Arc::clone(shard), name, start, bytes })
    }
}

/// The shard itself, or those of a folder, sorted.
fn list(shards: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(shards, e);
    if !shards.metadata().map_err(io)?.is_dir() {
        return Ok(vec![shards.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in shards.read_dir().map_err(io)? {
        let path = entry.map_err(io)?.path();
        if is_tar(&path) && !path.file_name().is_some_and(is_hidden) {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::request(shards, "holds no shard (*.tar)"));
    }
    found.sort();
    Ok(found)
}

/// Images and captions by their common name. `ignored` counts what is neither.
fn pairs(shard: &Path, ignored: &mut usize) -> Result<BTreeMap<PathBuf, Pair>> {
    let place: Arc<Path> = shard.into();
    let mut pairs = BTreeMap::<PathBuf, Pair>::new();
    for member in members(shard)? {
        if member.is_hidden() {
            continue;
        }
        let Member { name, start, bytes } = &member;
        let called = || member.called();
        // The name up to the first dot: `12.cropped.jpg` would belong to `12`.
        let file = name.file_name().unwrap_or_default().to_string_lossy();
        let key = name.with_file_name(file.split('.').next().unwrap_or_default());
        let twice = if is_image(name) {
            pairs.entry(key).or_default().image.replace(member.image(&place)?).is_some()
        } else if name.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) {
            if *bytes > MAX_CAPTION {
                return Err(Error::format(shard, format!("{} is larger than any caption", called())));
            }
            let text = String::from_utf8(read_range(shard, *start, *bytes)?);
            let text = text.map_err(|_| Error::format(shard, format!("{} is not UTF-8", called())))?;
            pairs.entry(key).or_default().caption.replace(text.trim().to_owned()).is_some()
        } else {
            *ignored += 1;
            false
        };
        if twice {
            return Err(Error::format(shard, format!("{} has the name of another file", called())));
        }
    }
    Ok(pairs)
}

/// All files of a shard. Only headers are read.
fn members(shard: &Path) -> Result<Vec<Member>> {
    let format = |reason: String| Error::format(shard, reason);
    let file = File::open(shard).map_err(|e| Error::io(shard, e))?;
    let length = file.metadata().map_err(|e| Error::io(shard, e))?.len();
    let mut start = [0; 2];
    if (&file).read(&mut start).map_err(|e| Error::io(shard, e))? == 2 && start == [0x1f, 0x8b] {
        return Err(Error::request(
            shard,
            "is compressed as a whole, so that no image can be read by itself: gunzip it",
        ));
    }
    let mut file = BufReader::new(file);
    file.rewind().map_err(|e| Error::io(shard, e))?;
    let mut archive = Archive::new(file);
    let broken = |e: std::io::Error| {
        // Of a file that is something else, the reason quotes bytes.
        let reason = Some(e.to_string()).filter(|reason| reason.chars().all(|c| c != '\u{fffd}' && !c.is_control()));
        Error::format(
            shard,
            format!("is no sound tar archive{}", reason.map_or_else(String::new, |r| format!(": {r}"))),
        )
    };
    let mut members = Vec::new();
    // A name too long for its header stands in an entry before it.
    let mut long_name = None;
    for entry in archive.entries_with_seek().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let name = long_name.take();
        let at = entry.raw_header_position();
        let bytes = entry.header().entry_size().map_err(broken)?;
        let start = entry.raw_file_position();
        let end = start.checked_add(bytes).filter(|&end| end <= length);
        end.ok_or_else(|| format(format!("ends within the entry at byte {at} ({bytes} bytes)")))?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let name = name.unwrap_or_else(|| entry.path_bytes().into_owned());
                members.push(Member { name: inside(&name).map_err(format)?, start, bytes });
            }
            EntryType::GNULongName => {
                let mut name = text(&mut entry, bytes).map_err(format)?;
                name.truncate(name.iter().position(|&b| b == 0).unwrap_or(name.len()));
                long_name = Some(name);
            }
            EntryType::XHeader => {
                let text = text(&mut entry, bytes).map_err(format)?;
                for extension in PaxExtensions::new(&text) {
                    let extension = extension.map_err(broken)?;
                    match extension.key() {
                        Ok("path") => long_name = Some(extension.value_bytes().to_owned()),
                        Ok("size") => return Err(format(format!("has an entry of odd size at byte {at}"))),
                        _ => {}
                    }
                }
            }
            EntryType::Directory | EntryType::XGlobalHeader => {}
            other => {
                let name =
                    String::from_utf8_lossy(&name.unwrap_or_else(|| entry.path_bytes().into_owned())).into_owned();
                return Err(format(format!("{name} is no regular file ({other:?}): links and devices are refused")));
            }
        }
    }
    Ok(members)
}

/// The content of an entry that stands for a name.
fn text<R: Read>(entry: &mut Entry<R>, bytes: u64) -> std::result::Result<Vec<u8>, String> {
    if bytes > MAX_NAME {
        return Err(format!("has a name of {bytes} bytes"));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// A name that stays inside.
fn inside(name: &[u8]) -> std::result::Result<PathBuf, String> {
    let text = std::str::from_utf8(name).map_err(|_| format!("{} is no name", String::from_utf8_lossy(name)))?;
    let path: PathBuf = Path::new(text).components().filter(|part| *part != Component::CurDir).collect();
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    match inside && !text.contains('\\') && path.file_name().is_some() {
        true => Ok(path),
        false => Err(format!("{text} leads out of the archive")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb, RgbImage};
    use std::fs;
    use std::io::Cursor;
    use tar::{Builder, Header};

    fn png(value: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_pixel(4, 4, Rgb([value; 3])).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, bytes) in entries {
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// An entry whose name `Builder` would refuse, or of another type.
    fn entry(name: &str, kind: EntryType, bytes: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_entry_type(kind);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let padding = vec![0; bytes.len().next_multiple_of(512) - bytes.len()];
        [&header.as_bytes()[..], bytes, &padding].concat()
    }

    fn message(bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("00000.tar");
        fs::write(&shard, bytes).unwrap();
        let message = open(&shard, 4).unwrap_err().to_string();
        assert!(message.contains("00000.tar"), "{message}");
        message
    }

    #[test]
    fn images_and_captions_come_in_the_order_of_shards_and_names() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}/0003", "deep".repeat(40));
        let first = tar(&[
            ("0002.txt", b"two\n"),
            ("0002.png", &png(2)),
            ("0001.json", b"{}"),
            ("0001.PNG", &png(1)),
            ("0001.txt", "één".as_bytes()),
            (".DS_Store", b"stray"),
            ("._0001.png", b"stray"),
        ]);
        let second = tar(&[(&format!("{long}.txt"), b"three"), (&format!("{long}.png"), &png(3))]);
        fs::write(folder.path().join("00001.tar"), &second).unwrap();
        fs::write(folder.path().join("00000.tar"), &first).unwrap();
        fs::write(folder.path().join("00000_stats.json"), "{}").unwrap();
        let found = open(folder.path(), 4).unwrap();
        assert_eq!(found.ignored, 1);
        assert!(found.path(2).to_str().unwrap().ends_with(&format!("00001.tar:{long}.png")));
        let images = found.load().unwrap();
        assert_eq!(images.captions.as_deref().unwrap(), ["één", "two", "three"]);
        assert_eq!([0, 1, 2].map(|i| images.image(i)[0]), [1, 2, 3]);
        assert_eq!(open(&folder.path().join("00001.tar"), 4).unwrap().len(), 1);
    }

    #[test]
    fn an_archive_of_a_folder_is_read_as_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let images = [("b/2.png", 2), ("a/1.PNG", 1), ("b/10.png", 3)];
        for (name, value) in images {
            let path = folder.path().join("folder").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, png(value)).unwrap();
        }
        let entries = images.map(|(name, value)| (name, png(value)));
        let mut entries: Vec<(&str, &[u8])> = entries.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        entries.extend([("b/.DS_Store", &b"stray"[..]), ("notes.txt", b"text")]);
        let archive = folder.path().join("all.tar");
        fs::write(&archive, tar(&entries)).unwrap();
        let found = crate::folder::open(&archive, 4).unwrap();
        assert_eq!((found.len(), found.ignored), (3, 1));
        let head = found.clone().head(2, &archive).unwrap();
        let (all, of_folder) = (found.load().unwrap(), crate::folder::open(&folder.path().join("folder"), 4).unwrap());
        assert_eq!(all, of_folder.load().unwrap());
        assert_eq!(head.load().unwrap(), all.take(2));
        let error = crate::folder::open(&archive, 4).unwrap().head(4, &archive).unwrap_err().to_string();
        assert!(error.contains("all.tar") && error.contains("holds 3 images, fewer than the first 4"), "{error}");
        let twice = tar(&[("1.png", &png(1)), ("1.png", &png(2))]);
        fs::write(&archive, &twice).unwrap();
        assert!(crate::folder::open(&archive, 4).unwrap_err().to_string().contains("the name of another file"));
        fs::write(&archive, &twice[..600]).unwrap();
        assert!(crate::folder::open(&archive, 4).unwrap_err().to_string().contains("ends within the entry"));
    }

    #[test]
    fn names_of_pax_headers_are_read() {
        let pair = |name: &str, bytes: &[u8]| {
            let record = format!("{} path={name}\n", name.len() + 9);
            [entry("pax", EntryType::XHeader, record.as_bytes()), entry("short", EntryType::Regular, bytes)].concat()
        };
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("a.tar");
        fs::write(&shard, [pair("a/1.png", &png(9)), pair("a/1.txt", b"nine"), vec![0; 1024]].concat()).unwrap();
        assert_eq!(open(&shard, 4).unwrap().captions.unwrap(), ["nine"]);
        fs::write(&shard, [pair("../1.png", &png(9)), vec![0; 1024]].concat()).unwrap();
        assert!(open(&shard, 4).unwrap_err().to_string().contains("leads out"));
    }

    #[test]
    fn what_leaves_the_archive_or_is_no_file_is_refused() {
        for name in ["../1.png", "/etc/1.png", "a/../../1.png", "..\\1.png", "."] {
            let message = message(&entry(name, EntryType::Regular, b"x"));
            assert!(message.contains("leads out of the archive"), "{name}: {message}");
        }
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo, EntryType::GNUSparse] {
            assert!(message(&entry("1.png", kind, b"")).contains("no regular file"), "{kind:?}");
        }
    }

    #[test]
    fn sizes_that_lie_are_refused_before_anything_is_read() {
        let mut lie = Header::new_gnu();
        lie.set_path("1.png").unwrap();
        lie.set_size(1 << 40);
        lie.set_cksum();
        assert!(message(lie.as_bytes()).contains("ends within the entry at byte 0"));
        let long = entry("x", EntryType::GNULongName, &vec![b'a'; 1 << 20]);
        assert!(message(&long).contains("a name of 1048576 bytes"));
        let caption = tar(&[("1.txt", &vec![b'a'; 1 << 17])]);
        assert!(message(&caption).contains("larger than any caption"));
        let record = b"20 size=99999999999\n";
        let odd = [entry("pax", EntryType::XHeader, record), entry("1.png", EntryType::Regular, b"x")].concat();
        assert!(message(&odd).contains("odd size"));
    }

    #[test]
    fn incomplete_and_damaged_shards_say_what_is_wrong() {
        let png = png(1);
        assert!(message(&tar(&[("1.png", &png)])).contains("1 has no caption"));
        assert!(message(&tar(&[("1.txt", b"x")])).contains("1 has no image"));
        assert!(message(&tar(&[("1.png", &png), ("1.jpg", &png)])).contains("the name of another file"));
        assert!(message(&tar(&[("1.png", &png), ("1.txt", &[0xff])])).contains("not UTF-8"));
        assert!(message(&tar(&[("1.json", b"{}")])).contains("no image"));
        assert!(message(b"").contains("no image"));
        assert!(message(&[0x1f, 0x8b, 8]).contains("gunzip"));
        assert!(message(&[b'x'; 600]).contains("no sound tar"));
        let bytes: Vec<u8> = (0..600_u32).map(|i| ((i * 7919) >> 3) as u8 | 0x80).collect();
        assert!(
            message(&bytes)
                .ends_with("is no sound tar archive; fetch the file again, or check that it is the right one")
        );
        let whole = tar(&[("1.png", &png), ("1.txt", b"one")]);
        for cut in (1..1536 + 3).step_by(7) {
            message(&whole[..cut]);
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(open(folder.path(), 4).unwrap_err().to_string().contains("no shard"));
        assert!(open(&folder.path().join("x.tar"), 4).unwrap_err().to_string().contains("not found"));
    }
}
