//! Text to tokens, as transformers' fast tokenizer of CLIP does it.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::merges::{Merges, PUBLISHED};

/// Most bytes of an unpacked vocabulary; the published one has 3.2 million.
const LARGEST: u64 = 16 << 20;

/// Endings in English, words, single digits, and runs of other signs.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";

/// A file that is no vocabulary of CLIP.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {reason}; expected is CLIP's bpe_simple_vocab_16e6.txt.gz, which `runner weights fetch clip-vocabulary` gets", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct VocabularyError {
    /// The file.
    pub path: PathBuf,
    /// The line, of the unpacked text.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

/// Text to tokens.
#[derive(Debug)]
pub struct Tokenizer {
    merges: Merges,
    words: Regex,
}

impl Tokenizer {
    /// Reads the published vocabulary (`bpe_simple_vocab_16e6.txt.gz`).
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self, VocabularyError> {
        let error = |line, reason| VocabularyError { path: path.to_owned(), line, reason };
        let file = std::fs::File::open(path).map_err(|e| error(None, e.to_string()))?;
        let mut text = String::new();
        let mut unpacked = GzDecoder::new(file).take(LARGEST + 1);
        unpacked.read_to_string(&mut text).map_err(|e| error(None, format!("cannot be unpacked: {e}")))?;
        if text.len() as u64 > LARGEST {
            return Err(error(None, format!("unpacks to more than {LARGEST} bytes")));
        }
        let merges = Merges::parse(&text, PUBLISHED).map_err(|(line, reason)| error(Some(line), reason))?;
        Ok(Self::new(merges))
    }

    /// Every byte a token of its own: nothing is read.
    pub fn of_bytes() -> Self {
        Self::new(Merges::parse("", 0).expect("nothing to read"))
    }

    fn new(merges: Merges) -> Self {
        Self { merges, words: Regex::new(WORDS).expect("a sound expression") }
    }

    /// The mark in front of every text.
    pub fn start(&self) -> u32 {
        self.merges.tokens()
    }

    /// The mark behind every text, which fills the rest too (as Stable Diffusion does; a text encoder ignores it).
    pub fn end(&self) -> u32 {
        self.merges.tokens() + 1
    }

    /// Exactly `length` tokens: the start, the text (cut if it is too long), the end, and ends up to the length. The text
    /// is brought to Unicode's composed form and to lower case; the marks' own names in it are text like any other.
    ///
    /// # Panics
    /// `length` is less than 2.
    pub fn encode(&self, text: &str, length: usize) -> Vec<u32> {
        // Letter by letter: what is special about a sigma at a word's end was not known to the vocabulary.
        let text: String = text.nfc().flat_map(char::to_lowercase).collect();
        let words = self.words.find_iter(&text).flat_map(|word| self.merges.tokens_of(word.as_str()));
        let mut tokens: Vec<u32> = [self.start()].into_iter().chain(words).take(length - 1).collect();
        tokens.resize(length, self.end());
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::new(Merges::parse("v\na b\nab c</w>\n", 2).unwrap())
    }

    #[test]
    fn a_text_has_two_ends_and_one_length() {
        let tokenizer = tokenizer();
        let (start, end) = (tokenizer.start(), tokenizer.end());
        assert_eq!((start, end), (514, 515));
        assert_eq!(tokenizer.encode("", 4), [start, end, end, end]);
        assert_eq!(tokenizer.encode("ABC  abc\n", 6), [start, 513, 513, end, end, end]);
        assert_eq!(tokenizer.encode("abc abc abc abc", 4), [start, 513, 513, end]);
        // A digit stands alone, signs stand together, an ending is a word of its own.
        let one = |text: &str| tokenizer.encode(text, 9)[1..].iter().take_while(|&&id| id != end).count();
        assert_eq!([one("12"), one("!?"), one("a's"), one("a'a")], [2, 2, 3, 3]);
    }

    #[test]
    fn composed_and_decomposed_letters_are_the_same() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode("é", 8), tokenizer.encode("e\u{301}", 8));
    }

    #[test]
    fn other_files_are_refused() {
        let folder = std::env::temp_dir().join(format!("clip-vocabulary-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("no.gz");
        assert!(Tokenizer::read(&path).unwrap_err().to_string().contains("no.gz: "));
        std::fs::write(&path, "plain text").unwrap();
        assert!(Tokenizer::read(&path).unwrap_err().to_string().contains("cannot be unpacked"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
