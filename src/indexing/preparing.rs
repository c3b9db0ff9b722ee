//! A text before it is cut into words: what its reader doesn't see is dropped,
//! what looks alike is one character.
//!
//! - Invisible characters (soft hyphens, joiners, direction marks, variation
//!   selectors, ...) and marks that enclose others (a keycap) are dropped.
//! - Characters of compatibility are brought to NFKC, since what they stand for
//!   may have ends of words (`№ 5`, `㈱日立`) or belong to a run (`⽇本`). Spaces of
//!   all kinds are spaces by that, the narrow one that UAX #29 takes for a letter
//!   too. A word needs no more: all else that NFKC does it does inside words,
//!   and folding does it there.
//! - Apostrophes are one character, and so are what people type in their place.
//!
//! Most characters need none of it, and a table of a bit each says so: a text of
//! such characters is not copied. A text is prepared a stretch after the other,
//! each ending with white space where there is some, for the room that a copy takes.

use std::sync::OnceLock;

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};

use super::dictionaries::is_in_dictionaries;

/// A stretch ends with the first white space behind so many bytes.
const STRETCH_BYTES: usize = if cfg!(test) { 16 } else { 1 << 16 };

/// Takes the next stretch of `text` off its front.
pub(super) fn next_stretch<'a>(text: &mut &'a str) -> Option<&'a str> {
    if text.is_empty() {
        return None;
    }
    let space =
        text.bytes().skip(STRETCH_BYTES).position(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
    let (stretch, rest) = text.split_at(space.map_or(text.len(), |place| STRETCH_BYTES + place + 1));
    *text = rest;
    Some(stretch)
}

/// A stretch that is ready to be cut.
pub(super) struct Prepared<'a> {
    pub(super) text: &'a str,
    /// Whether it has characters of a script that only a dictionary cuts into words.
    pub(super) needs_dictionary: bool,
}

/// Prepares a stretch, in `buffer` unless it can stay as it is.
pub(super) fn prepare<'a>(stretch: &'a str, buffer: &'a mut String) -> Prepared<'a> {
    let special = special_characters();
    let Some((mut place, mut character)) = special.first_in(stretch) else {
        return Prepared { text: stretch, needs_dictionary: false };
    };
    buffer.clear();
    let mut needs_dictionary = false;
    let mut rest = stretch;
    loop {
        buffer.push_str(&rest[..place]);
        needs_dictionary |= is_in_dictionaries(character);
        push_special(character, buffer);
        rest = &rest[place + character.len_utf8()..];
        match special.first_in(rest) {
            Some(found) => (place, character) = found,
            None => break,
        }
    }
    buffer.push_str(rest);
    Prepared { text: buffer, needs_dictionary }
}

/// A bit for each character of the first plane that is not to stay as it is.
struct SpecialCharacters {
    bits: Box<[u64]>,
}

/// How many characters have a bit.
const PLANE: u32 = 0x1_0000;

fn special_characters() -> &'static SpecialCharacters {
    static TABLE: OnceLock<SpecialCharacters> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut bits = vec![0; PLANE as usize / 64].into_boxed_slice();
        for number in (0..PLANE).filter(|number| char::from_u32(*number).is_some_and(is_special)) {
            bits[number as usize / 64] |= 1u64 << (number % 64);
        }
        SpecialCharacters { bits }
    })
}

impl SpecialCharacters {
    fn has(&self, character: char) -> bool {
        let number = u32::from(character);
        match self.bits.get(number as usize / 64) {
            Some(bits) => bits >> (number % 64) & 1 == 1,
            None => is_special(character),
        }
    }

    fn first_in(&self, text: &str) -> Option<(usize, char)> {
        let mut from = 0;
        loop {
            from += text.as_bytes()[from..].iter().position(|byte| !byte.is_ascii())?;
            let character = text[from..].chars().next()?;
            if self.has(character) {
                return Some((from, character));
            }
            from += character.len_utf8();
        }
    }
}

fn is_special(character: char) -> bool {
    !character.is_ascii()
        && !is_full_width_punctuation(character)
        && (is_dropped(character)
            || stands_for(character).is_some()
            || is_in_dictionaries(character)
            || (is_nfkc_quick(std::iter::once(character)) == IsNormalized::No
                && std::iter::once(character).nfkc().count() <= FORM_CHARACTERS_MAX))
}

/// What becomes more characters is left to folding, as part of its word, or a text could be much longer than it
/// looks: one character stands for eighteen. These are ligatures of phrases, and long units in a square.
const FORM_CHARACTERS_MAX: usize = 6;

/// Chinese and Japanese texts are full of it. It ends words, or is folded inside them.
fn is_full_width_punctuation(character: char) -> bool {
    matches!(character, '\u{3000}' | '！' | '（' | '）' | '，' | '：' | '；' | '？')
}

/// What has no form of its own, but for some that UAX #29 ends a word at.
fn is_dropped(character: char) -> bool {
    matches!(u32::from(character),
        // `Default_Ignorable_Code_Point` without those that look like a space.
        0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
        | 0x202a..=0x202e | 0x2060..=0x206f | 0xfe00..=0xfe0f | 0xfeff | 0xfff0..=0xfffb
        | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff
        // Marks that enclose others.
        | 0x488..=0x489 | 0x1abe | 0x20dd..=0x20e0 | 0x20e2..=0x20e4 | 0xa670..=0xa672)
}

/// What a character is written for that NFKC doesn't tell.
fn stands_for(character: char) -> Option<&'static str> {
    match u32::from(character) {
        // Apostrophes: quotation marks, letters and accents that are typed for one.
        0x2018
        | 0x2019
        | 0x201b
        | 0x2bb..=0x2bd
        | 0xff07
        | 0x55a
        | 0x5f3
        | 0x7f4
        | 0x7f5
        | 0xa78b
        | 0xa78c
        | 0xb4 => Some("'"),
        // The sign of Hebrew abbreviations.
        0x5f4 => Some("\""),
        // The fillers of Hangul look like spaces; the signs of marks stand behind words and are no part of them.
        0x3164 | 0xffa0 | 0x2120 | 0x2122 => Some(" "),
        _ => None,
    }
}

/// Whether the character is a number, a sign or a unit by itself: it doesn't go on with what is beside it.
fn stands_apart(character: char) -> bool {
    matches!(u32::from(character),
        0xb2..=0xb3 | 0xb9 | 0xbc..=0xbe | 0x2070 | 0x2074..=0x2079 | 0x2150..=0x215f | 0x2189
        | 0x2460..=0x249b | 0x24ea | 0x3251..=0x325f | 0x32b1..=0x32bf
        // Signs and units: what is counted stands beside them (`№12`, `84㎡`).
        | 0x20a8 | 0x2100..=0x2101 | 0x2105..=0x2106 | 0x2116 | 0x2121 | 0x213b | 0xfdfc | 0x3371..=0x337a
        | 0x3380..=0x33df | 0x33ff)
}

fn push_special(character: char, text: &mut String) {
    if is_dropped(character) {
    } else if let Some(other) = stands_for(character) {
        text.push_str(other);
    } else if is_in_dictionaries(character) {
        push_for_dictionary(character, text);
    } else if stands_apart(character) {
        text.push(' ');
        push_compatible(character, text);
        text.push(' ');
    } else {
        push_compatible(character, text);
    }
}

/// What stands for characters of compatibility.
fn push_compatible(character: char, text: &mut String) {
    for character in std::iter::once(character).nfkc() {
        match stands_for(character) {
            Some(other) => text.push_str(other),
            None => text.push(character),
        }
    }
}

/// The vowel `am` of Thai and Lao, and the two letters that begin with a silent `h` in Lao, in one piece, as
/// dictionaries have them, however they were typed. Folding takes them apart again.
fn push_for_dictionary(character: char, text: &mut String) {
    let with_h = match character {
        '\u{e99}' => Some('\u{edc}'),
        '\u{ea1}' => Some('\u{edd}'),
        _ => None,
    };
    if let Some(one) = with_h.filter(|_| text.ends_with('\u{eab}')) {
        let _ = text.pop();
        return text.push(one);
    }
    let (ring, tones, am) = match character {
        '\u{e32}' => ('\u{e4d}', '\u{e48}'..='\u{e4b}', '\u{e33}'),
        '\u{eb2}' => ('\u{ecd}', '\u{ec8}'..='\u{ecb}', '\u{eb3}'),
        _ => return text.push(character),
    };
    let mut before = text.chars().rev();
    let tone = match (before.next(), before.next()) {
        (Some(last), _) if last == ring => None,
        (Some(last), Some(other)) if tones.contains(&last) && other == ring => Some(last),
        _ => return text.push(character),
    };
    let _ = text.pop();
    if tone.is_some() {
        let _ = text.pop();
    }
    text.extend(tone);
    text.push(am);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(text: &str) -> String {
        prepare(text, &mut String::new()).text.to_owned()
    }

    #[test]
    fn a_text_that_needs_nothing_is_not_copied() {
        for text in [
            "plain",
            "naïve café, “tea” — ok",
            "Ёлка и снег",
            "中文，标点。（好）！",
            "한국어",
            "e\u{301}",
            "",
        ] {
            let mut buffer = String::new();
            assert_eq!(prepare(text, &mut buffer).text.as_ptr(), text.as_ptr(), "{text}");
        }
    }

    #[test]
    fn each_character_is_dropped_or_becomes_what_it_stands_for() {
        assert_eq!(prepared("l’a\u{ad}b\u{200d}c\u{202f}№⽇"), "l'abc  No 日");
        assert_eq!(prepared("x²½™y"), "x 2  1\u{2044}2  y");
        assert_eq!(prepared("\u{1d400}\u{e0101}\u{20e3}"), "A");
        // Canonical composition is left to folding: it changes nothing about where words end.
        assert_eq!(prepared("e\u{301}\u{fb01}"), "e\u{301}fi");
    }

    #[test]
    fn am_is_one_vowel_however_it_was_typed() {
        for (left, right) in [
            ("น\u{e49}\u{e4d}\u{e32}", "น\u{e49}\u{e33}"),
            ("น\u{e4d}\u{e49}\u{e32}", "น\u{e49}\u{e33}"),
            ("ນ\u{ecd}\u{ec9}\u{eb2}", "ນ\u{ec9}\u{eb3}"),
            ("นา", "นา"),
            ("\u{e32}", "\u{e32}"),
            ("\u{e4d}\u{eb2}", "\u{e4d}\u{eb2}"),
        ] {
            assert_eq!(prepared(left), right);
        }
    }

    #[test]
    fn stretches_are_the_whole_text_and_end_with_spaces() {
        let text = "ab ç ".repeat(50) + &"é".repeat(100) + "\tb";
        let mut rest = &text[..];
        let stretches: Vec<&str> = std::iter::from_fn(|| next_stretch(&mut rest)).collect();
        assert_eq!(stretches.concat(), text);
        assert!(stretches.len() > 5);
        let (_, ended) = stretches.split_last().unwrap();
        assert!(ended.iter().all(|stretch| stretch.ends_with(char::is_whitespace)));
    }
}
