//! What is said of a face: its known factors in words, none of which a mirror changes.

use super::factors::{BEARD, FACTORS, GLASSES};

/// `a smiling person with fair skin, long blond hair, glasses and a beard`: one of 216 captions, each of at most 75 bytes (which CLIP's 77
/// tokens hold, whatever its vocabulary). Factors in thirds, hair length in halves.
pub(super) fn caption(known: &[f32; FACTORS.len()]) -> String {
    let [_, _, _, _, skin, colour, length, _, _, _, _, smile, ..] = *known;
    let (glasses, beard) = (known[GLASSES], known[BEARD]);
    let third = |factor: f32, words: [&'static str; 3]| {
        words[usize::from(factor > -1.0 / 3.0) + usize::from(factor > 1.0 / 3.0)]
    };
    let mood = third(smile, ["frowning", "calm", "smiling"]);
    let skin = third(skin, ["fair", "tan", "dark"]);
    let colour = third(colour, ["black", "brown", "blond"]);
    let length = if length > 0.0 { "long" } else { "short" };
    let mut features = vec![format!("{skin} skin"), format!("{length} {colour} hair")];
    features.extend((glasses > -1.0).then(|| "glasses".to_owned()));
    features.extend((beard > -1.0).then(|| "a beard".to_owned()));
    let last = features.pop().expect("there are two at least");
    format!("a {mood} person with {} and {last}", features.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::faces;

    #[test]
    fn captions_are_few_and_short_and_say_what_is_there() {
        let captions = faces::captions(0, 20_000);
        let distinct: BTreeSet<&String> = captions.iter().collect();
        assert_eq!(distinct.len(), 216);
        assert!(captions.iter().all(|caption| caption.len() <= 75));
        let images = faces::faces(8, 0, 300);
        assert_eq!(images.captions.as_deref(), Some(&captions[..300]));
        let place = |name: &str| FACTORS.iter().position(|factor| *factor == name).unwrap();
        let value = |i: usize, name: &str| images.factors(i)[place(name)];
        for (i, caption) in captions[..300].iter().enumerate() {
            assert_eq!(caption.contains("glasses"), value(i, "glasses") > -1.0, "{caption}");
            assert_eq!(caption.contains("beard"), value(i, "beard") > -1.0, "{caption}");
            assert_eq!(caption.contains("long"), value(i, "hair_length") > 0.0, "{caption}");
            assert_eq!(caption.contains("blond"), value(i, "hair_colour") > 1.0 / 3.0, "{caption}");
            assert_eq!(caption.contains("dark skin"), value(i, "skin") > 1.0 / 3.0, "{caption}");
            assert_eq!(caption.contains("frowning"), value(i, "smile") <= -1.0 / 3.0, "{caption}");
        }
    }

    #[test]
    fn a_caption_is_a_sentence() {
        let mut known = [-1.0; FACTORS.len()];
        assert_eq!(caption(&known), "a frowning person with fair skin and short black hair");
        known[GLASSES] = 0.0;
        assert_eq!(caption(&known), "a frowning person with fair skin, short black hair and glasses");
        known.fill(0.9);
        assert_eq!(caption(&known), "a smiling person with dark skin, long blond hair, glasses and a beard");
    }
}
