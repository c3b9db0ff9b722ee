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
//!
//! No text costs more than its length: of a word the first
//! [`WORD_CHARACTERS_MAX`] characters of the folded form count, behind thirty
//! combining marks in a row a joiner stands that ends the run (the Stream-Safe
//! Text Format of UAX #15), since a run must be sorted as a whole, and a query
//! is read no further than to the first word that is too many.
//!
//! [`WORD_CHARACTERS_MAX`]: crate::limits::WORD_CHARACTERS_MAX

use std::collections::HashMap;
use std::ops::ControlFlow;

use unicode_segmentation::UnicodeSegmentation as _;

use super::folding::Folder;
use crate::error::{Code, Error};
use crate::limits::{QUERY_WORDS_MAX, WORD_CHARACTERS_MAX};

/// The revision of the rule that cuts texts and queries into words. It goes up with every change of what is found by
/// what, the tables of Unicode and the dictionaries of libraries included, so that clients can tell nodes apart that
/// answer the same query differently.
pub const TEXT_REVISION: u32 = 2;

/// What tokens are wanted for: see the module's header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Document,
    Query,
}

/// Whether whoever takes the tokens wants more of them.
type Wanted = ControlFlow<()>;

/// Gives every token that a document is to be found by to `visit`, in order.
pub(super) fn for_each_token(folder: &mut Folder, text: &str, mut visit: impl FnMut(&str)) {
    let _ = tokenize(folder, text, Purpose::Document, &mut |token: &str| {
        visit(token);
        Wanted::Continue(())
    });
}

fn tokenize(
    folder: &mut Folder,
    text: &str,
    purpose: Purpose,
    visit: &mut impl FnMut(&str) -> Wanted,
) -> Wanted {
    if text.is_ascii() {
        ascii_tokens(text.as_bytes(), visit)
    } else {
        unicode_tokens(folder, text, purpose, visit)
    }
}

/// A word of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryTerm {
    /// As the index folds it.
    pub word: String,
    /// How often the query has it: it counts so many times, as BM25 has it.
    pub count: u32,
}

/// The tokens of a query, each once, in the order in which they come first.
/// Refused when there are more than [`QUERY_WORDS_MAX`], those that come again
/// counted again; what stands behind the first one too many is not looked at.
pub fn terms_of_query(text: &str) -> Result<Vec<QueryTerm>, Error> {
    let mut terms: Vec<QueryTerm> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut words = 0;
    let read = tokenize(&mut Folder::default(), text, Purpose::Query, &mut |token: &str| {
        words += 1;
        if words > QUERY_WORDS_MAX {
            return Wanted::Break(());
        }
        match places.get(token) {
            Some(&place) => terms[place].count += 1,
            None => {
                places.insert(token.to_owned(), terms.len());
                terms.push(QueryTerm { word: token.to_owned(), count: 1 });
            }
        }
        Wanted::Continue(())
    });
    if read.is_break() {
        let message = format!("`query` has more words than the {QUERY_WORDS_MAX} that it may have");
        return Err(Error::new(Code::BadRequest, message));
    }
    Ok(terms)
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

fn ascii_tokens(text: &[u8], visit: &mut impl FnMut(&str) -> Wanted) -> Wanted {
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
        if is_word {
            visit_ascii(&text[start..end], visit)?;
        }
    }
    Wanted::Continue(())
}

/// Gives an ASCII word to `visit`, folded.
fn visit_ascii(word: &[u8], visit: &mut impl FnMut(&str) -> Wanted) -> Wanted {
    const SHORT_BYTES: usize = 48;
    let lowered = |folded: &mut [u8], visit: &mut dyn FnMut(&str) -> Wanted| {
        folded.copy_from_slice(&word[..folded.len()]);
        folded.make_ascii_lowercase();
        visit(std::str::from_utf8(folded).unwrap_or(""))
    };
    if word.len() <= SHORT_BYTES {
        lowered(&mut [0u8; SHORT_BYTES][..word.len()], visit)
    } else {
        lowered(&mut [0u8; WORD_CHARACTERS_MAX][..word.len().min(WORD_CHARACTERS_MAX)], visit)
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

fn unicode_tokens(
    folder: &mut Folder,
    text: &str,
    purpose: Purpose,
    visit: &mut impl FnMut(&str) -> Wanted,
) -> Wanted {
    let mut run = Run { purpose, pair: String::new(), characters: 0, end_position: 0 };
    let mut token = Token::default();
    for (start, word) in text.unicode_word_indices() {
        if word.is_ascii() {
            run.end(visit)?;
            visit_ascii(word.as_bytes(), visit)?;
            continue;
        }
        token.clear();
        let _ = folder.fold(word, |character| token.push(character));
        if !token.is_unspaced {
            run.end(visit)?;
            visit(&token.text)?;
            continue;
        }
        if start != run.end_position {
            run.end(visit)?;
        }
        if token.characters < WORD_CHARACTERS_MAX {
            token.text.chars().try_for_each(|character| run.push(character, visit))?;
        } else {
            // Such a word has no end of its own: all of it is characters and pairs.
            folder.fold(word, |character| run.push(character, visit))?;
        }
        run.end_position = start + word.len();
    }
    run.end(visit)
}

/// The first characters of a word's form, which decide what it is.
#[derive(Default)]
struct Token {
    text: String,
    characters: usize,
    is_unspaced: bool,
}

impl Token {
    fn clear(&mut self) {
        self.text.clear();
        self.characters = 0;
        self.is_unspaced = true;
    }

    fn push(&mut self, character: char) -> Wanted {
        self.is_unspaced &= is_unspaced(character);
        self.text.push(character);
        self.characters += 1;
        if self.characters < WORD_CHARACTERS_MAX { Wanted::Continue(()) } else { Wanted::Break(()) }
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
    fn push(&mut self, character: char, visit: &mut impl FnMut(&str) -> Wanted) -> Wanted {
        if self.characters >= 2 {
            let first = self.pair.chars().next().map_or(0, char::len_utf8);
            self.pair.drain(..first);
        }
        self.pair.push(character);
        self.characters += 1;
        if self.characters >= 2 {
            visit(&self.pair)?;
        }
        match self.purpose {
            Purpose::Document => visit(character.encode_utf8(&mut [0; 4])),
            Purpose::Query => Wanted::Continue(()),
        }
    }

    fn end(&mut self, visit: &mut impl FnMut(&str) -> Wanted) -> Wanted {
        let alone = self.characters == 1 && self.purpose == Purpose::Query;
        let wanted = if alone { visit(&self.pair) } else { Wanted::Continue(()) };
        self.pair.clear();
        self.characters = 0;
        wanted
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

    /// A query's tokens, as often as they stand there.
    fn queried(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let _ = tokenize(&mut Folder::default(), text, Purpose::Query, &mut |token: &str| {
            found.push(token.to_owned());
            Wanted::Continue(())
        });
        found
    }

    fn tokens(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for_each_token(&mut Folder::default(), text, |token| found.push(token.to_owned()));
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
        assert_eq!(queried("東京都"), ["東京", "京都"]);
        assert_eq!(queried("猫"), ["猫"]);
        assert_eq!(queried("東京 都、猫"), ["東京", "都", "猫"]);
        assert_eq!(
            queried("カタカナとひらがな"),
            ["カタ", "タカ", "カナ", "ナと", "とひ", "ひら", "らが", "がな"]
        );
        assert_eq!(queried("私はRustが好き"), ["私は", "rust", "が好", "好き"]);
        assert_eq!(queried("佐々木"), ["佐々", "々木"]);
        assert_eq!(queried("𠮷野家"), ["𠮷野", "野家"]);
        assert_eq!(queried("2024年"), ["2024", "年"]);
        // A document has the single characters, too, so that 京 finds it.
        assert_eq!(tokens("東京都"), ["東", "東京", "京", "京都", "都"]);
        assert_eq!(tokens("東京 都"), ["東", "東京", "京", "都"]);
    }

    #[test]
    fn a_querys_terms_come_in_their_order_with_how_often_they_stand_there() {
        let terms = terms_of_query("to be or Not to BE, to").unwrap();
        let terms: Vec<(&str, u32)> = terms.iter().map(|term| (&term.word[..], term.count)).collect();
        assert_eq!(terms, [("to", 3), ("be", 2), ("or", 1), ("not", 1)]);
        assert_eq!(terms_of_query("?! 👍"), Ok(Vec::new()));
    }

    #[test]
    fn a_query_is_read_no_further_than_to_the_first_word_too_many() {
        for word in ["a", "é", "\u{fdfa}", "京", "か\u{3099}"] {
            let most = QUERY_WORDS_MAX + usize::from(word == "京" || word.starts_with('か'));
            let longest =
                terms_of_query(&vec![word; most].join(if most > QUERY_WORDS_MAX { "" } else { " " }));
            assert_eq!(longest.unwrap().iter().map(|term| term.count).sum::<u32>(), 1_024, "{word}");
            let one_more = vec![word; QUERY_WORDS_MAX + 1].join(" ");
            assert!(terms_of_query(&one_more).is_err(), "{word}");
            let text = format!("{word} ").repeat(100_000);
            let mut visited = 0;
            let read = tokenize(&mut Folder::default(), &text, Purpose::Query, &mut |_: &str| {
                visited += 1;
                if visited > QUERY_WORDS_MAX { Wanted::Break(()) } else { Wanted::Continue(()) }
            });
            assert_eq!((read.is_break(), visited), (true, QUERY_WORDS_MAX + 1), "{word}");
            let error = terms_of_query(&text).unwrap_err();
            assert_eq!(error.code, Code::BadRequest);
        }
    }

    #[test]
    fn of_a_long_word_the_first_characters_count_however_it_is_spelled() {
        let x = "x".repeat(WORD_CHARACTERS_MAX);
        assert_eq!(tokens(&"X".repeat(5_000)), [&x[..]]);
        assert_eq!(tokens(&format!("é {}", "X".repeat(5_000))), ["é", &x[..]]);
        assert_eq!(tokens(&"Ｘ".repeat(5_000)), [&x[..]]);
        assert_eq!(tokens(&"X".repeat(WORD_CHARACTERS_MAX)), [&x[..]]);
        for (left, right) in
            [("É", "e\u{301}"), ("H\u{331}", "\u{1e96}"), ("ß", "SS"), ("\u{1f82}", "\u{1f8a}")]
        {
            let long = tokens(&left.repeat(700));
            assert_eq!(long, tokens(&right.repeat(700)), "{left} and {right}");
            assert_eq!(long[0].chars().count(), WORD_CHARACTERS_MAX);
        }
        // A run of Katakana is one word by UAX #29, and has no end to be cut at.
        assert_eq!(tokens(&"カ".repeat(1_000)).len(), 1_999);
        assert_eq!(tokens(&"ｶ".repeat(1_000)).len(), 1_999);
    }

    #[test]
    fn marks_without_end_are_a_word_like_any_other() {
        let marks = |count: usize| "\u{300}\u{316}".repeat(count);
        let word = tokens(&format!("A{}", marks(5_000)));
        assert_eq!(word, tokens(&format!("a{}", marks(6_000))));
        assert_eq!(word[0].chars().count(), WORD_CHARACTERS_MAX);
        // Up to thirty nothing is put between them: their order is the canonical one.
        assert_eq!(tokens(&format!("A{}", marks(15))), tokens(&format!("à{}", &marks(15)[2..])));
        assert!(!tokens(&format!("A{}", marks(15)))[0].contains('\u{34f}'));
    }

    proptest! {
        #[test]
        fn the_ascii_path_gives_what_the_unicode_path_gives(text in "[a-cA-C0-2_.:,;' \\-\"\\t\\x00]{0,30}") {
            let mut expected = Vec::new();
            let _ = unicode_tokens(&mut Folder::default(), &text, Purpose::Document, &mut |token: &str| {
                expected.push(token.to_owned());
                Wanted::Continue(())
            });
            prop_assert_eq!(tokens(&text), expected);
        }

        #[test]
        fn folding_a_token_again_changes_nothing(text in any::<String>()) {
            for token in tokens(&text) {
                let mut again = Token::default();
                again.clear();
                let _ = Folder::default().fold(&token, |character| again.push(character));
                prop_assert_eq!(&again.text, &token);
            }
        }
    }
}
