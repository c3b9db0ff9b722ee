//! The parts of glued words, and names of which a sign is part.
//!
//! UAX #29 keeps `john.doe`, `level:error`, `l'école` and `user_id` in one piece, and
//! people write `ThreadPoolExecutor`. A document is to be found by each part of
//! such a word, from the largest to the smallest: by what stands between the
//! characters that join letters or digits, between underscores in these, and
//! between changes of case in those. A query's word is looked for as it stands,
//! or `example.com` would find every `com`.
//!
//! All parts of a word are given, however long it is, in one pass over it.

use std::ops::{ControlFlow, Range};

/// What a character is to the parts of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Goes on with the letter in front of it.
    Mark,
    /// A letter without case.
    Letter,
    Small,
    Capital,
    Digit,
    /// `ExtendNumLet` of UAX #29.
    Underscore,
    /// What UAX #29 keeps letters or digits together by (`MidLetter`, `MidNum`, `MidNumLet`, and quotes).
    Joiner,
}

fn kind(character: char) -> Kind {
    match character {
        'a'..='z' => Kind::Small,
        'A'..='Z' => Kind::Capital,
        '0'..='9' => Kind::Digit,
        _ if is_underscore(character) => Kind::Underscore,
        _ if is_joiner(character) => Kind::Joiner,
        '\0'..='\x7f' | '\u{300}'..='\u{36f}' => Kind::Mark,
        // Hangul, Kana and Han, which have no case: the tables would be searched in vain.
        '\u{1100}'..='\u{11ff}' | '\u{3041}'..='\u{a48c}' | '\u{ac00}'..='\u{d7ff}' => Kind::Letter,
        _ if character.is_lowercase() => Kind::Small,
        _ if character.is_uppercase() => Kind::Capital,
        _ if character.is_numeric() => Kind::Digit,
        _ if character.is_alphabetic() => Kind::Letter,
        _ => Kind::Mark,
    }
}

fn is_underscore(character: char) -> bool {
    matches!(character, '_' | '\u{203f}' | '\u{2040}' | '\u{2054}')
}

fn is_joiner(character: char) -> bool {
    match character {
        '\0'..='\x7f' => matches!(character, '.' | '\'' | ':' | ',' | ';' | '"'),
        '\u{b7}' | '\u{387}' | '\u{55f}' | '\u{589}' | '\u{5f4}' | '\u{60c}' | '\u{60d}' | '\u{66c}'
        | '\u{7f8}' | '\u{2024}' | '\u{2027}' | '\u{2044}' | '\u{ff0c}' | '\u{ff1a}' | '\u{ff1b}' => true,
        _ => false,
    }
}

/// Whether the character joins parts of a word.
pub(super) fn is_glue(character: char) -> bool {
    is_joiner(character) || is_underscore(character)
}

/// Gives where the parts of a word stand in it to `visit`, the smaller ones first, without the word itself.
pub(super) fn for_each_part(
    word: &str,
    visit: &mut impl FnMut(Range<usize>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut open = Open::default();
    let mut before = Kind::Mark;
    // The last capital, if it ends a piece should a small letter come next.
    let mut last_capital = None;
    for (place, character) in word.char_indices() {
        let current = kind(character);
        let end = place + character.len_utf8();
        match current {
            Kind::Mark => continue,
            Kind::Joiner => {
                let is_decimal = character == '.' && before == Kind::Digit;
                if !(is_decimal && word[end..].starts_with(char::is_numeric)) {
                    open.end_between_joiners(place, end, word.len(), visit)?;
                }
            }
            Kind::Underscore => open.end_between_underscores(place, end, visit)?,
            Kind::Capital if before == Kind::Small => open.end_of_case(place, visit)?,
            Kind::Small => {
                if let Some(capital) = last_capital
                    && !(character == 's' && ends_as_plural(&word[end..]))
                {
                    open.end_of_case(capital, visit)?;
                }
            }
            Kind::Letter | Kind::Capital | Kind::Digit => {}
        }
        if !matches!(current, Kind::Joiner | Kind::Underscore) {
            open.has_letter_or_digit = true;
        }
        let may_end = current == Kind::Capital && matches!(before, Kind::Capital | Kind::Digit);
        last_capital = may_end.then_some(place);
        before = current;
    }
    open.end_between_joiners(word.len(), word.len(), word.len(), visit)
}

/// Whether the `s` in front of this is that of a plural (`URLs`), and no word's beginning.
fn ends_as_plural(rest: &str) -> bool {
    !rest.chars().map(kind).find(|kind| *kind != Kind::Mark).is_some_and(|next| next == Kind::Small)
}

/// The pieces that have begun, from the largest to the smallest; each ends when a larger one does.
#[derive(Default)]
struct Open {
    between_joiners: usize,
    between_underscores: usize,
    of_case: usize,
    /// Whether the piece between underscores has one.
    has_letter_or_digit: bool,
    /// Whether one of them has had one since the last joiner.
    any_had: bool,
    /// Whether there was an underscore since the last joiner.
    had_underscore: bool,
}

impl Open {
    fn end_of_case(
        &mut self,
        place: usize,
        visit: &mut impl FnMut(Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let piece = self.of_case..place;
        self.of_case = place;
        if piece.is_empty() { ControlFlow::Continue(()) } else { visit(piece) }
    }

    /// A piece ends at `place`, the next one begins at `next`, with an underscore between them.
    fn end_between_underscores(
        &mut self,
        place: usize,
        next: usize,
        visit: &mut impl FnMut(Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.had_underscore = true;
        self.end_smaller(place, next, visit)
    }

    fn end_smaller(
        &mut self,
        place: usize,
        next: usize,
        visit: &mut impl FnMut(Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let start = self.between_underscores;
        if self.of_case > start {
            self.end_of_case(place, visit)?;
        }
        if self.had_underscore && self.has_letter_or_digit {
            visit(start..place)?;
        }
        self.any_had |= self.has_letter_or_digit;
        self.has_letter_or_digit = false;
        (self.between_underscores, self.of_case) = (next, next);
        ControlFlow::Continue(())
    }

    fn end_between_joiners(
        &mut self,
        place: usize,
        next: usize,
        length: usize,
        visit: &mut impl FnMut(Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.end_smaller(place, next, visit)?;
        let piece = self.between_joiners..place;
        if self.any_had && piece.len() < length {
            visit(piece)?;
        }
        *self = Open { between_joiners: next, between_underscores: next, of_case: next, ..Open::default() };
        ControlFlow::Continue(())
    }
}

/// The signs that belong to a name behind it (`C++`, `F#`), or in front of it (`.NET`): where `word`
/// stands in `text` from `start` to `end`, whether there is a dot and which signs there are. In a document
/// the dot may stand behind more than in a query: there the name is one more token, here the only one.
#[inline]
pub(super) fn signs_of(
    text: &str,
    start: usize,
    end: usize,
    is_document: bool,
) -> Option<(bool, &'static str)> {
    let bytes = text.as_bytes();
    let may_be = matches!(bytes.get(end), Some(b'+' | b'#')) || (start > 0 && bytes[start - 1] == b'.');
    if may_be { signs_beside(text, start, end, is_document) } else { None }
}

fn signs_beside(text: &str, start: usize, end: usize, is_document: bool) -> Option<(bool, &'static str)> {
    let bytes = text.as_bytes();
    let behind = match bytes.get(end) {
        Some(b'+') if bytes.get(end + 1) == Some(&b'+') => "++",
        Some(b'#')
            if !text[end + 1..]
                .starts_with(|next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '#')) =>
        {
            "#"
        }
        _ => "",
    };
    let dot = start > 0 && bytes[start - 1] == b'.';
    if behind.is_empty() && !dot {
        return None;
    }
    let word = &text[start..end];
    let ends_with_letter =
        word.chars().rev().find(|last| kind(*last) != Kind::Mark).is_some_and(char::is_alphabetic);
    let behind = if ends_with_letter { behind } else { "" };
    let opens = if is_document { may_open } else { opens };
    let dot = dot && word.starts_with(char::is_alphabetic) && opens(text[..start - 1].chars().next_back());
    (dot || !behind.is_empty()).then_some((dot, behind))
}

/// Whether a document's name may begin behind this character: behind all but those that words of scripts with
/// spaces between words end with (`~/.bashrc`, `C#/.NET`).
fn may_open(before: Option<char>) -> bool {
    before.is_none_or(|before| {
        !matches!(before, '_' | '.') && (!before.is_alphanumeric() || kind(before) == Kind::Letter)
    })
}

/// Whether a name may begin behind this character: at the beginning, a space, a bracket or quote.
fn opens(before: Option<char>) -> bool {
    before.is_none_or(|before| {
        before.is_whitespace()
            || matches!(
                before,
                '(' | '[' | '{' | '<' | '"' | '\'' | '`' | '\u{201c}'
                    ..='\u{201e}'
                        | '\u{ab}'
                        | '\u{2039}'
                        | '\u{3008}'
                        | '\u{300a}'
                        | '\u{300c}'
                        | '\u{300e}'
                        | '\u{3010}'
                        | '\u{ff08}'
            )
    })
}
