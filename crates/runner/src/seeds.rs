//! Training seeds on the command line: `0..2`, `0,3`, `7`.

use std::str::FromStr;

/// Training seeds, ascending and without repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seeds(Vec<u64>);

/// More seeds than anyone runs: a guard against `0..99999999`.
const MOST: u64 = 1000;

impl Seeds {
    /// The seeds.
    pub(crate) fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

impl FromStr for Seeds {
    type Err = String;

    /// Reads a comma-separated list of seeds and ranges. A range includes its end: the protocol `0..2` has three seeds.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse::<u64>()
                .map_err(|_| format!("`{part}` is not a seed; write e.g. `0..2` (0, 1 and 2), `0,3` or `7`"))
        };
        let mut seeds = Vec::new();
        for part in text.split(',') {
            match part.split_once("..") {
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last.strip_prefix('=').unwrap_or(last))?);
                    if first > last {
                        return Err(format!("the range `{part}` is empty: {first} is larger than {last}"));
                    }
                    if last - first >= MOST {
                        return Err(format!("the range `{part}` has more than {MOST} seeds"));
                    }
                    seeds.extend(first..=last);
                }
                None => seeds.push(number(part)?),
            }
        }
        seeds.sort_unstable();
        seeds.dedup();
        Ok(Self(seeds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_their_end_and_lists_are_sorted() {
        assert_eq!("0..2".parse::<Seeds>().unwrap().as_slice(), [0, 1, 2]);
        assert_eq!("0..=2".parse::<Seeds>().unwrap().as_slice(), [0, 1, 2]);
        assert_eq!("7".parse::<Seeds>().unwrap().as_slice(), [7]);
        assert_eq!("5,0..1,1".parse::<Seeds>().unwrap().as_slice(), [0, 1, 5]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a", "2..0", "-1", "0..", "1.5", "0..18446744073709551615"] {
            assert!(text.parse::<Seeds>().is_err(), "{text}");
        }
    }
}
