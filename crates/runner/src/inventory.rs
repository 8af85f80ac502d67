//! What lies in a results tree, without a plan: stages by kind and key, finished or not, found by the first digits of a key.

use std::collections::BTreeSet;
use std::path::Path;

use manifest::digest::Key;

use crate::exit::Failure;

/// Fewest digits by which a key may be named.
const FEWEST_DIGITS: usize = 4;

/// A stage in a results tree, finished or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// Its kind.
    pub(crate) kind: String,
    /// Its key.
    pub(crate) key: Key,
}

/// All stages that have left anything in `results` (`<kind>/<key[..2]>/<key>` or `.<key>.partial`), by kind and key.
pub(crate) fn stages(results: &Path) -> Vec<Found> {
    let mut found = BTreeSet::new();
    for kind in names(results) {
        for shard in names(&results.join(&kind)) {
            for name in names(&results.join(&kind).join(&shard)) {
                let key = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial")).unwrap_or(&name);
                if let Ok(key) = key.parse() {
                    found.insert(Found { kind: kind.clone(), key });
                }
            }
        }
    }
    found.into_iter().collect()
}

/// The one stage whose key begins with `digits`.
///
/// # Errors
/// [`Failure::Usage`] when there is none or more than one.
pub(crate) fn by_digits(results: &Path, digits: &str) -> Result<Found, Failure> {
    let is_key = digits.len() >= FEWEST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_key {
        let problem = format!("`{digits}` is not a key: {FEWEST_DIGITS} to 64 hexadecimal digits");
        return Err(Failure::Usage(format!("{problem}\n  `runner status ARTIFACT` lists keys")));
    }
    let digits = digits.to_ascii_lowercase();
    let mut matching: Vec<Found> =
        stages(results).into_iter().filter(|found| found.key.to_string().starts_with(&digits)).collect();
    match (matching.pop(), matching.len()) {
        (Some(found), 0) => Ok(found),
        (Some(found), others) => {
            let longer = found.key.short();
            let problem = format!("`{digits}` begins {} keys in {}", others + 1, results.display());
            Err(Failure::Usage(format!("{problem}\n  give more digits, e.g. {longer}")))
        }
        (None, _) => {
            let problem = format!("no stage in {} has a key that begins with `{digits}`", results.display());
            Err(Failure::Usage(format!(
                "{problem}\n  `runner status ARTIFACT` lists keys; `--results DIR` names another tree"
            )))
        }
    }
}

/// Names in a folder; none where it is missing.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_and_unfinished_stages_are_found_by_their_first_digits() {
        let results = tempfile::tempdir().unwrap();
        let (a, b) = (format!("ab12{}", "0".repeat(60)), format!("ab34{}", "0".repeat(60)));
        for folder in [format!("train/ab/{a}"), format!("sample/ab/.{b}.partial"), "train/ab/other".to_owned()] {
            std::fs::create_dir_all(results.path().join(folder)).unwrap();
        }
        assert_eq!(stages(results.path()).len(), 2);
        assert_eq!(by_digits(results.path(), "ab34").unwrap().kind, "sample");
        assert_eq!(by_digits(results.path(), "AB12").unwrap().key.to_string(), a);
        for unclear in ["ab1", "ffff", "b/hard", ""] {
            assert!(matches!(by_digits(results.path(), unclear), Err(Failure::Usage(_))), "{unclear}");
        }
    }

    #[test]
    fn a_missing_tree_is_empty() {
        assert!(stages(Path::new("no such folder")).is_empty());
    }
}
