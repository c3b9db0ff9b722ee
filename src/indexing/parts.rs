//! The parts of glued words, and names of which a sign is part.
//!
//! UAX #29 keeps `john.doe`, `level:error`, `l'école` and `user_id` in one piece, and
//! people write `ThreadPoolExecutor`. A document is to be found by each part of
//! such a word, from the largest to the smallest: by what stands between the
//! characters that join letters or digits, between underscores in these, and
//! between changes of case in those. A query's word is looked for as it stands,
//! or `example.com` would find every `com`.
//!
//! All parts of a word are given, however long it is: the work is that of three
//! passes over it.

use std::ops::ControlFlow;

/// Gives the parts of a word to `visit`, without the word itself.
pub(super) fn for_each_part(word: &str, visit: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    for piece in word.split(is_joiner).filter(|piece| has_letter_or_digit(piece)) {
        if piece.len() < word.len() {
            visit(piece)?;
        }
        for part in piece.split(is_underscore).filter(|part| has_letter_or_digit(part)) {
            if part.len() < piece.len() {
                visit(part)?;
            }
            let mut rest = part;
            while !rest.is_empty() {
                let (first, behind) = rest.split_at(end_of_case(rest));
                if first.len() < part.len() {
                    visit(first)?;
                }
                rest = behind;
            }
        }
    }
    ControlFlow::Continue(())
}

/// Whether the character joins parts of a word.
pub(super) fn is_glue(character: char) -> bool {
    is_joiner(character) || is_underscore(character)
}

fn has_letter_or_digit(piece: &str) -> bool {
    piece.chars().any(char::is_alphanumeric)
}

/// What UAX #29 keeps letters or digits together by (`MidLetter`, `MidNum`, `MidNumLet`, and quotes).
fn is_joiner(character: char) -> bool {
    match character {
        '.' | '\'' | ':' | ',' | ';' | '"' => true,
        _ if character.is_ascii() => false,
        '\u{b7}' | '\u{387}' | '\u{55f}' | '\u{589}' | '\u{5f4}' | '\u{60c}' | '\u{60d}' | '\u{66c}'
        | '\u{7f8}' | '\u{2018}' | '\u{2019}' | '\u{2024}' | '\u{2027}' | '\u{2044}' => true,
        _ => {
            matches!(u32::from(character), 0xfe10..=0xfe14 | 0xfe50..=0xfe55 | 0xff07 | 0xff0c | 0xff0e | 0xff1a | 0xff1b)
        }
    }
}

/// `ExtendNumLet` of UAX #29.
fn is_underscore(character: char) -> bool {
    match character {
        '_' | '\u{203f}' | '\u{2040}' | '\u{2054}' => true,
        _ => matches!(u32::from(character), 0xfe33..=0xfe34 | 0xfe4d..=0xfe4f | 0xff3f),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    None,
    Small,
    Capital,
    Digit,
}

fn case(character: char) -> Option<Case> {
    if character.is_lowercase() {
        Some(Case::Small)
    } else if character.is_uppercase() {
        Some(Case::Capital)
    } else if character.is_numeric() {
        Some(Case::Digit)
    } else {
        // A mark goes on with its letter.
        character.is_alphabetic().then_some(Case::None)
    }
}

/// Where the first piece ends: before a capital behind a small letter, and before the last capital of several,
/// or one behind a digit, if a small letter follows (`HTTP|Server`, `log4|Net`, `A1B2`), but for the `s` of a plural
/// (`URLs`).
fn end_of_case(word: &str) -> usize {
    let mut before = Case::None;
    let mut characters = word.char_indices();
    while let Some((place, character)) = characters.next() {
        let Some(current) = case(character) else { continue };
        if current == Case::Capital && before != Case::None {
            let is_end = before == Case::Small || begins_small_letters(characters.as_str());
            if is_end && place > 0 {
                return place;
            }
        }
        before = current;
    }
    word.len()
}

fn begins_small_letters(rest: &str) -> bool {
    let mut cases =
        rest.chars().map(|character| (character, case(character))).filter(|(_, case)| case.is_some());
    match cases.next() {
        Some(('s', _)) => cases.next().is_some_and(|(_, case)| case == Some(Case::Small)),
        next => matches!(next, Some((_, Some(Case::Small)))),
    }
}

/// The signs that belong to a name behind it (`C++`, `F#`), or in front of it (`.NET`): where `word`
/// stands in `text` from `start` to `end`, whether there is a dot and which signs there are.
pub(super) fn signs_of(text: &str, start: usize, end: usize) -> Option<(bool, &'static str)> {
    let bytes = text.as_bytes();
    let behind = match bytes.get(end) {
        Some(b'+') if bytes.get(end + 1) == Some(&b'+') => "++",
        Some(b'#')
            if !text[end + 1..]
                .starts_with(|next: char| next.is_alphanumeric() || matches!(next, '_' | '#')) =>
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
        word.chars().rev().find(|last| case(*last).is_some()).is_some_and(char::is_alphabetic);
    let behind = if ends_with_letter { behind } else { "" };
    let dot = dot && word.starts_with(char::is_alphabetic) && opens(text[..start - 1].chars().next_back());
    (dot || !behind.is_empty()).then_some((dot, behind))
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
