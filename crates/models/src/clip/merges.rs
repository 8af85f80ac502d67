//! Byte-pair encoding with CLIP's published merges.
//!
//! The published file is a line of version, then a pair of tokens per line, the most frequent first. Bytes are written as
//! printable characters there: those of Latin-1 that can be seen stand for themselves, the others for `U+0100` and on. The
//! tokens are the 256 characters in that order, the same at the end of a word (`</w>`), one per pair, and the two marks.

use std::collections::HashMap;

/// Pairs that CLIP uses; the published file goes on behind them.
pub(super) const PUBLISHED: usize = 49_152 - 256 - 2;

/// What ends a word in the file.
const END_OF_WORD: &str = "</w>";

/// Pairs of tokens and what they become.
#[derive(Debug)]
pub(super) struct Merges {
    /// Token of each byte; at the end of a word, 256 more.
    bytes: [u32; 256],
    /// The token that a pair becomes; a lower one comes first.
    pairs: HashMap<(u32, u32), u32>,
}

impl Merges {
    /// Reads `count` pairs of the file's text.
    ///
    /// # Errors
    /// The reason, and the line where it lies: a pair is missing, or made of unknown tokens.
    pub(super) fn parse(text: &str, count: usize) -> Result<Self, (usize, String)> {
        let characters = characters();
        let mut bytes = [0; 256];
        let mut known: HashMap<String, u32> = HashMap::new();
        for (token, (byte, character)) in (0..).zip(characters) {
            bytes[usize::from(byte)] = token;
            known.insert(character.to_string(), token);
            known.insert(format!("{character}{END_OF_WORD}"), token + 256);
        }
        let mut pairs = HashMap::with_capacity(count);
        let mut lines = text.lines().enumerate().skip(1);
        for merged in (512..).take(count) {
            let end = || (text.lines().count(), format!("there are {} pairs, not {count}", merged - 512));
            let (number, line) = lines.next().ok_or_else(end)?;
            let at = |reason: String| (number + 1, reason);
            let Some((left, right)) = line.split_once(' ') else {
                return Err(at(format!("`{line}` is no pair of tokens")));
            };
            let token = |part: &str| known.get(part).copied().ok_or_else(|| at(format!("`{part}` is no token yet")));
            if pairs.insert((token(left)?, token(right)?), merged).is_some() {
                return Err(at(format!("`{line}` comes twice")));
            }
            known.insert(format!("{left}{right}"), merged);
        }
        Ok(Self { bytes, pairs })
    }

    /// Number of tokens without the two marks.
    pub(super) fn tokens(&self) -> u32 {
        512 + self.pairs.len() as u32
    }

    /// Tokens of one word: its bytes, joined pair by pair, the most frequent pair first.
    pub(super) fn tokens_of(&self, word: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = word.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        if let Some(last) = tokens.last_mut() {
            *last += 256;
        }
        while let Some(merged) = tokens.windows(2).filter_map(|pair| self.pairs.get(&(pair[0], pair[1]))).min() {
            let mut joined = Vec::with_capacity(tokens.len());
            for token in tokens {
                match joined.last() {
                    Some(&left) if self.pairs.get(&(left, token)) == Some(merged) => {
                        *joined.last_mut().expect("there is one") = *merged;
                    }
                    _ => joined.push(token),
                }
            }
            tokens = joined;
        }
        tokens
    }
}

/// Each byte with the character that stands for it, in the order of their tokens.
fn characters() -> Vec<(u8, char)> {
    let seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..=255_u8).filter(seen).map(|byte| (byte, char::from(byte)));
    let others = (0..=255_u8).filter(|byte| !seen(byte)).zip('\u{100}'..);
    own.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_join_in_the_order_of_the_file() {
        let merges = Merges::parse("version\na b\nab c</w>\nb c</w>\nb b\n", 4).unwrap();
        assert_eq!(merges.tokens(), 516);
        // `a` is the 33rd character behind `!`.
        let [a, b] = [64, 65];
        assert_eq!(merges.tokens_of("abc"), [513]);
        assert_eq!(merges.tokens_of("bc"), [514]);
        assert_eq!(merges.tokens_of("abab"), [512, a, b + 256]);
        assert_eq!(merges.tokens_of("bbbb"), [515, b, b + 256]);
        assert_eq!(merges.tokens_of("a"), [a + 256]);
        assert!(merges.tokens_of("").is_empty());
        // Bytes that cannot be seen come behind those that can: 188 of them.
        assert_eq!(merges.tokens_of("\0"), [188 + 256]);
    }

    #[test]
    fn mistakes_in_the_file_are_named_with_their_line() {
        let message = |text: &str| Merges::parse(text, 2).unwrap_err();
        assert_eq!(message("v\na b\n"), (2, "there are 1 pairs, not 2".to_owned()));
        assert_eq!(message("v\na b\nab\n"), (3, "`ab` is no pair of tokens".to_owned()));
        assert_eq!(message("v\na b\nabc d\n"), (3, "`abc` is no token yet".to_owned()));
        assert_eq!(message("v\na b\na b\n"), (3, "`a b` comes twice".to_owned()));
    }
}
