//! Words of pure ASCII by the rules of UAX #29, without its tables: a byte at a time.

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

/// A word of a text, or underscores alone.
pub(super) struct AsciiWord {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether it has a letter or a digit.
    is_word: bool,
    /// Whether it may have parts: a character joins two of them, or a capital stands behind its first letter.
    pub(super) may_have_parts: bool,
}

/// The words of a text of ASCII.
pub(super) fn ascii_words(text: &[u8]) -> impl Iterator<Item = AsciiWord> {
    let mut position = 0;
    let next = move || {
        let begins = |byte: &u8| {
            matches!(CLASSES[usize::from(byte & 127)], Class::Letter | Class::Digit | Class::Underscore)
        };
        let word = ascii_word(text, position + text.get(position..)?.iter().position(begins)?);
        position = word.end;
        Some(word)
    };
    std::iter::from_fn(next).filter(|word| word.is_word)
}

fn ascii_word(text: &[u8], start: usize) -> AsciiWord {
    let mut word = AsciiWord { start, end: start, is_word: false, may_have_parts: false };
    let mut previous = Class::Other;
    loop {
        let position = word.end;
        let current = class(text, position);
        let joins = match current {
            Class::Letter | Class::Digit => {
                word.is_word = true;
                word.may_have_parts |= position > start && text[position].is_ascii_uppercase();
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
            return word;
        }
        word.may_have_parts |= !matches!(current, Class::Letter | Class::Digit);
        previous = current;
        word.end += 1;
    }
}

fn joins_two(text: &[u8], position: usize, previous: Class, kind: Class) -> bool {
    previous == kind && class(text, position + 1) == kind
}
