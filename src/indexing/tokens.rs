//! Text into tokens: Unicode words (UAX #29), in one form for all spellings.
//!
//! A word is brought to NFKC, case-folded in full (`ß` and `SS` become `ss`,
//! final and medial sigma the same letter) and brought to NFKC again, since
//! folding can undo it. Nothing is left out and nothing is stemmed, so that a
//! query finds what its reader sees.
//!
//! Chinese and Japanese put no spaces between words, and UAX #29 cuts them into
//! single characters. A run of such characters is indexed as its characters and
//! its overlapping pairs (東京都: 東, 東京, 京, 京都, 都). A query looks for the
//! pairs, which are selective enough to search by and need no dictionary, and
//! for a character that stands alone (京) as it is.
//!
//! Pure ASCII, most text there is, takes a path of its own with the same
//! result, which a test compares.

use icu_casemap::CaseMapper;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};
use unicode_segmentation::UnicodeSegmentation as _;

/// What tokens are wanted for: see the module's header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Document,
    Query,
}

/// Gives every token that a document is to be found by to `visit`, in order.
pub(super) fn for_each_token(text: &str, mut visit: impl FnMut(&str)) {
    tokenize(text, Purpose::Document, &mut visit);
}

fn tokenize(text: &str, purpose: Purpose, visit: &mut impl FnMut(&str)) {
    if text.is_ascii() {
        ascii_tokens(text.as_bytes(), visit);
    } else {
        unicode_tokens(text, purpose, visit);
    }
}

/// The tokens of a query in their order. One that stands there twice counts
/// twice, as BM25 has it.
pub fn terms_of_query(text: &str) -> Vec<String> {
    let mut terms: Vec<String> = Vec::new();
    tokenize(text, Purpose::Query, &mut |token: &str| terms.push(token.to_owned()));
    terms
}

/// What a byte is to the word rules for ASCII.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Ends a word.
    Other,
    Letter,
    Digit,
    /// `_`, part of a word, though no word by itself.
    Underscore,
    /// Joins letters (`:`).
    MiddleOfLetters,
    /// Joins digits (`,` and `;`).
    MiddleOfDigits,
    /// Joins either, two of a kind (`.` and `'`).
    MiddleOfEither,
}

const CLASSES: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'_' => Class::Underscore,
            b':' => Class::MiddleOfLetters,
            b',' | b';' => Class::MiddleOfDigits,
            b'.' | b'\'' => Class::MiddleOfEither,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

fn class(text: &[u8], position: usize) -> Class {
    text.get(position).map_or(Class::Other, |&byte| CLASSES[usize::from(byte & 127)])
}

fn ascii_tokens(text: &[u8], visit: &mut impl FnMut(&str)) {
    const SHORT_BYTES: usize = 48;
    let mut position = 0;
    while position < text.len() {
        let first = class(text, position);
        if !matches!(first, Class::Letter | Class::Digit | Class::Underscore) {
            position += 1;
            continue;
        }
        let start = position;
        let (end, is_word) = ascii_word(text, start);
        position = end;
        if !is_word {
            continue;
        }
        let word = &text[start..end];
        if word.len() <= SHORT_BYTES {
            let mut folded = [0u8; SHORT_BYTES];
            let folded = &mut folded[..word.len()];
            folded.copy_from_slice(word);
            folded.make_ascii_lowercase();
            visit(std::str::from_utf8(folded).unwrap_or(""));
        } else {
            visit(&String::from_utf8_lossy(word).to_ascii_lowercase());
        }
    }
}

/// Where the word that begins at `start` ends, and whether it has a letter or a digit.
fn ascii_word(text: &[u8], start: usize) -> (usize, bool) {
    let mut is_word = false;
    let mut position = start;
    let mut previous = Class::Other;
    loop {
        let current = class(text, position);
        let joins = match current {
            Class::Letter | Class::Digit => {
                is_word = true;
                true
            }
            Class::Underscore => true,
            Class::MiddleOfLetters => joins_two(text, position, previous, Class::Letter),
            Class::MiddleOfDigits => joins_two(text, position, previous, Class::Digit),
            Class::MiddleOfEither => {
                joins_two(text, position, previous, Class::Letter)
                    || joins_two(text, position, previous, Class::Digit)
            }
            Class::Other => false,
        };
        if !joins {
            return (position, is_word);
        }
        previous = current;
        position += 1;
    }
}

fn joins_two(text: &[u8], position: usize, previous: Class, kind: Class) -> bool {
    previous == kind && class(text, position + 1) == kind
}

fn unicode_tokens(text: &str, purpose: Purpose, visit: &mut impl FnMut(&str)) {
    let mut run = Run { purpose, pair: String::new(), characters: 0, end_position: 0 };
    for (start, word) in text.unicode_word_indices() {
        if word.is_ascii() {
            run.end(visit);
            visit(&word.to_ascii_lowercase());
            continue;
        }
        let folded = fold(word);
        if folded.chars().all(is_unspaced) {
            if start != run.end_position {
                run.end(visit);
            }
            folded.chars().for_each(|character| run.push(character, visit));
            run.end_position = start + word.len();
        } else {
            run.end(visit);
            visit(&folded);
        }
    }
    run.end(visit);
}

fn fold(word: &str) -> String {
    let folder = CaseMapper::new();
    if is_nfkc_quick(word.chars()) == IsNormalized::Yes {
        normalized(&folder.fold_string(word))
    } else {
        let composed: String = word.nfkc().collect();
        normalized(&folder.fold_string(&composed))
    }
}

fn normalized(word: &str) -> String {
    match is_nfkc_quick(word.chars()) {
        IsNormalized::Yes => word.to_owned(),
        _ => word.nfkc().collect(),
    }
}

/// A run of characters of a script without spaces.
struct Run {
    purpose: Purpose,
    /// The last character as a token of its own, behind the one before it.
    pair: String,
    characters: usize,
    /// Where the run ends in the text, in bytes.
    end_position: usize,
}

impl Run {
    fn push(&mut self, character: char, visit: &mut impl FnMut(&str)) {
        if self.characters >= 2 {
            let first = self.pair.chars().next().map_or(0, char::len_utf8);
            self.pair.drain(..first);
        }
        self.pair.push(character);
        self.characters += 1;
        if self.characters >= 2 {
            visit(&self.pair);
        }
        if self.purpose == Purpose::Document {
            visit(character.encode_utf8(&mut [0; 4]));
        }
    }

    fn end(&mut self, visit: &mut impl FnMut(&str)) {
        if self.characters == 1 && self.purpose == Purpose::Query {
            visit(&self.pair);
        }
        self.pair.clear();
        self.characters = 0;
    }
}

/// Whether the character belongs to Chinese or Japanese writing (Han, Kana,
/// Bopomofo and their marks). Korean puts spaces between words.
fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character),
        0x2e80..=0x2fdf | 0x3005..=0x3007 | 0x3021..=0x3029 | 0x3031..=0x3035 | 0x3038..=0x303c
        | 0x3041..=0x30ff | 0x3105..=0x312f | 0x31a0..=0x31bf | 0x31f0..=0x31ff
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x1aff0..=0x1b16f | 0x20000..=0x3fffd)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for_each_token(text, |token| found.push(token.to_owned()));
        found
    }

    #[test]
    fn words_by_unicode_rules() {
        assert_eq!(
            tokens("The quick (\"brown\") fox can't jump 32.3 feet, right?"),
            ["the", "quick", "brown", "fox", "can't", "jump", "32.3", "feet", "right"]
        );
        assert_eq!(
            tokens("e.g. 1,000;5 _ __ snake_case a_1 a.1 1.a 3.. .5 o'"),
            ["e.g", "1,000;5", "snake_case", "a_1", "a", "1", "1", "a", "3", "5", "o"]
        );
        assert_eq!(tokens("naïve café — “tea”"), ["naïve", "café", "tea"]);
        assert_eq!(tokens("👍🏽 🇩🇪 👩‍👩‍👧 ok 👍"), ["ok"]);
        assert_eq!(tokens(""), [""; 0]);
        assert_eq!(tokens("한국어 검색"), ["한국어", "검색"]);
        assert_eq!(tokens(&"X".repeat(5_000)), ["x".repeat(5_000)]);
    }

    #[test]
    fn one_form_for_all_spellings() {
        for (left, right) in [
            ("STRASSE", "straße"),
            ("ΟΔΟΣ", "οδος"),
            ("οδοσ", "οδος"),
            ("Café", "CAFE\u{301}"),
            ("ﬁne", "FINE"),
            ("ＡＢＣ１２", "abc12"),
            ("ｶﾞｷﾞ", "ガギ"),
            ("K", "\u{212a}"),
            ("Å", "\u{212b}"),
            ("か\u{3099}き", "がき"),
        ] {
            assert_eq!(tokens(left), tokens(right), "{left} and {right}");
        }
        // Folding is the same everywhere: it isn't Turkish.
        assert_eq!(tokens("DIYARBAKIR"), ["diyarbakir"]);
        assert_eq!(tokens("Diyarbakır"), ["diyarbakır"]);
        assert_eq!(tokens("İstanbul"), ["i\u{307}stanbul"]);
    }

    #[test]
    fn unspaced_scripts_as_pairs() {
        assert_eq!(terms_of_query("東京都"), ["東京", "京都"]);
        assert_eq!(terms_of_query("猫"), ["猫"]);
        assert_eq!(terms_of_query("東京 都、猫"), ["東京", "都", "猫"]);
        assert_eq!(
            terms_of_query("カタカナとひらがな"),
            ["カタ", "タカ", "カナ", "ナと", "とひ", "ひら", "らが", "がな"]
        );
        assert_eq!(terms_of_query("私はRustが好き"), ["私は", "rust", "が好", "好き"]);
        assert_eq!(terms_of_query("佐々木"), ["佐々", "々木"]);
        assert_eq!(terms_of_query("𠮷野家"), ["𠮷野", "野家"]);
        assert_eq!(terms_of_query("2024年"), ["2024", "年"]);
        // A document has the single characters, too, so that 京 finds it.
        assert_eq!(tokens("東京都"), ["東", "東京", "京", "京都", "都"]);
        assert_eq!(tokens("東京 都"), ["東", "東京", "京", "都"]);
    }

    #[test]
    fn a_querys_terms_come_in_their_order_as_often_as_they_stand_there() {
        assert_eq!(terms_of_query("to be or Not to BE"), ["to", "be", "or", "not", "to", "be"]);
        assert_eq!(terms_of_query("?! 👍"), [""; 0]);
    }

    proptest! {
        #[test]
        fn the_ascii_path_gives_what_the_unicode_path_gives(text in "[a-cA-C0-2_.:,;' \\-\"\\t\\x00]{0,30}") {
            let mut expected = Vec::new();
            unicode_tokens(&text, Purpose::Document, &mut |token: &str| expected.push(token.to_owned()));
            prop_assert_eq!(tokens(&text), expected);
        }

        #[test]
        fn folding_a_token_again_changes_nothing(text in any::<String>()) {
            for token in tokens(&text) {
                prop_assert_eq!(&fold(&token), &token);
            }
        }
    }
}
