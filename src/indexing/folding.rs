//! One form for all spellings of a word: NFKC, full case folding, NFKC again.
//!
//! A word is folded in pieces. A piece begins at each character that nothing in
//! front of it can change and that changes nothing there: most letters. Combining
//! marks and the later parts of a syllable belong to the piece of the letter in
//! front of them. So the form of a word is the forms of its pieces, one after
//! the other, and those are remembered, since a text has few different ones.
//!
//! Nothing here waits for the end of a word or of a piece, which may be as long
//! as the text: one character may become eighteen, and combining marks are put
//! in order when the run of them has ended, which it does after thirty.

use std::ops::ControlFlow;

use icu_casemap::CaseMapper;
use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};

/// Pieces up to this length are remembered.
const PIECE_BYTES: usize = 8;
/// Their forms, up to this length. The longest of one character has 33 bytes.
const FORM_BYTES: usize = 54;
/// How many pieces are remembered: more than a script has letters.
const REMEMBERED: usize = 2_048;

/// A piece and its form.
#[derive(Clone, Copy)]
struct Piece {
    /// Its bytes; zero for none.
    key: u64,
    /// Of a single character: whether a piece begins with it.
    begins: bool,
    length: u8,
    form: [u8; FORM_BYTES],
}

impl Piece {
    const NONE: Piece = Piece { key: 0, begins: false, length: 0, form: [0; FORM_BYTES] };

    fn form(&self) -> &str {
        std::str::from_utf8(&self.form[..usize::from(self.length)]).unwrap_or("")
    }
}

/// Folds words, and remembers the pieces that it has seen last.
#[derive(Default)]
pub(super) struct Folder {
    pieces: Vec<Piece>,
}

impl Folder {
    /// Gives the characters of a word's form to `take` until it breaks off. What is read of the
    /// word, and what it costs, is bounded by what is taken.
    pub(super) fn fold(
        &mut self,
        word: &str,
        mut take: impl FnMut(char) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let mut length = first.len_utf8();
            // Longer pieces aren't remembered: where they end needs not be known.
            while let Some(next) = rest[length..].chars().next()
                && length <= PIECE_BYTES
                && !self.begins(next)
            {
                length += next.len_utf8();
            }
            if length == first.len_utf8() && is_plain(first) {
                take(first.to_ascii_lowercase())?;
            } else if length <= PIECE_BYTES
                && let Some(piece) = self.remembered(&rest[..length])
            {
                piece.form().chars().try_for_each(&mut take)?;
            } else {
                let mut read = 0;
                let piece =
                    rest.chars().enumerate().take_while(|&(place, next)| place == 0 || !self.begins(next));
                folded(piece.map(|(_, next)| next).inspect(|next| read += next.len_utf8()))
                    .try_for_each(&mut take)?;
                length = read;
            }
            rest = &rest[length..];
        }
        ControlFlow::Continue(())
    }

    /// Whether a piece begins with this character.
    fn begins(&mut self, character: char) -> bool {
        is_plain(character)
            || self.remembered(character.encode_utf8(&mut [0; 4])).is_some_and(|piece| piece.begins)
    }

    /// A short piece; `None` if its form is too long to be remembered.
    fn remembered(&mut self, piece: &str) -> Option<&Piece> {
        if self.pieces.is_empty() {
            self.pieces = vec![Piece::NONE; REMEMBERED];
        }
        let key = key_of(piece);
        let place = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize % REMEMBERED;
        let found = self.pieces.get_mut(place)?;
        if found.key != key {
            *found = learn(key, piece)?;
        }
        Some(found)
    }

    /// What it remembers, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece>()
    }
}

/// Begins a piece and is, but for ASCII's capitals, its own form: ASCII, Han characters and whole
/// syllables of Hangul, of which there are too many to be remembered.
fn is_plain(character: char) -> bool {
    matches!(character, '\0'..='\x7f' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

/// The bytes of a short piece; no character of a word is zero.
fn key_of(piece: &str) -> u64 {
    let mut key = [0; PIECE_BYTES];
    key[..piece.len()].copy_from_slice(piece.as_bytes());
    u64::from_le_bytes(key)
}

fn learn(key: u64, piece: &str) -> Option<Piece> {
    let mut learnt = Piece { key, ..Piece::NONE };
    let mut end = 0;
    let mut first = None;
    let is_composed = is_nfkc_quick(piece.chars()) == IsNormalized::Yes;
    let mut push = |character: char| {
        first = first.or(Some(character));
        let place = learnt.form.get_mut(end..end + character.len_utf8())?;
        end += character.encode_utf8(place).len();
        Some(())
    };
    let folded_whole = CaseMapper::new().fold_string(piece);
    if is_composed && is_nfkc_quick(folded_whole.chars()) == IsNormalized::Yes {
        folded_whole.chars().try_for_each(&mut push)?;
    } else {
        folded(piece.chars()).try_for_each(&mut push)?;
    }
    learnt.length = end as u8;
    let decomposed = piece.chars().nfkd().next();
    learnt.begins = [decomposed, first].into_iter().flatten().all(stands_alone);
    Some(learnt)
}

/// Whether nothing in front of the character composes with it or changes places with it.
fn stands_alone(character: char) -> bool {
    canonical_combining_class(character) == 0
        && is_nfkc_quick(std::iter::once(character)) == IsNormalized::Yes
}

/// The form of these characters: NFKC of runs that end, full case folding, NFKC.
fn folded(characters: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    characters.stream_safe().nfkc().flat_map(fold_character).nfkc()
}

/// Full case folding depends on nothing but the character, and gives three at most.
fn fold_character(character: char) -> impl Iterator<Item = char> {
    let mut folded = [None; 3];
    if character.is_ascii() {
        folded[0] = Some(character.to_ascii_lowercase());
    } else {
        let mut bytes = [0; 4];
        let form = CaseMapper::new().fold_string(character.encode_utf8(&mut bytes));
        folded.iter_mut().zip(form.chars()).for_each(|(place, character)| *place = Some(character));
    }
    folded.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(folder: &mut Folder, word: &str) -> String {
        let mut form = String::new();
        let _ = folder.fold(word, |character| {
            form.push(character);
            ControlFlow::Continue(())
        });
        form
    }

    /// What the standards say, step by step over the whole word.
    fn form_by_hand(word: &str) -> String {
        let composed: String = word.chars().stream_safe().nfkc().collect();
        CaseMapper::new().fold_string(&composed).nfkc().collect()
    }

    #[test]
    fn every_character_folds_as_by_hand_alone_and_between_others() {
        let mut folder = Folder::default();
        for character in ('\u{1}'..=char::MAX).filter(|c| is_interesting(*c)) {
            for word in [
                character.to_string(),
                format!("a{character}\u{301}"),
                format!("\u{1112}{character}\u{11ab}"),
            ] {
                assert_eq!(form(&mut folder, &word), form_by_hand(&word), "{word:?}");
            }
        }
    }

    /// Whatever folding or normalization change, and what changes with others.
    fn is_interesting(character: char) -> bool {
        let alone = character.to_string();
        is_plain(character)
            || is_nfkc_quick(alone.chars()) != IsNormalized::Yes
            || canonical_combining_class(character) != 0
            || CaseMapper::new().fold_string(&alone) != alone
    }

    #[test]
    fn no_character_folds_to_more_than_three() {
        let mut bytes = [0; 4];
        for character in '\0'..=char::MAX {
            let whole = CaseMapper::new().fold_string(character.encode_utf8(&mut bytes)).into_owned();
            assert_eq!(fold_character(character).collect::<String>(), whole, "{character:?}");
        }
    }

    #[test]
    fn a_piece_is_read_as_far_as_its_form_is_wanted() {
        for piece in ["\u{300}", "\u{300}\u{316}", "\u{344}", "\u{1161}", "\u{345}"] {
            let word = format!("a{}", piece.repeat(100_000));
            let mut read = 0;
            let wanted = folded(word.chars().inspect(|_| read += 1)).take(256).count();
            assert_eq!(wanted, 256);
            assert!(read <= 2 * 256 + 64, "{read} characters of {piece:?} were read");
        }
    }

    #[test]
    fn a_word_is_folded_no_further_than_it_is_taken() {
        for word in ["a\u{300}", "\u{fdfa}", "\u{1112}\u{1161}\u{11ab}", "\u{300}", "é"] {
            let (mut folder, mut taken) = (Folder::default(), 0);
            let ended = folder.fold(&word.repeat(100_000), |_| {
                taken += 1;
                if taken == 256 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!((ended.is_break(), taken), (true, 256), "{word:?}");
        }
    }

    proptest! {
        #[test]
        fn a_word_folds_as_by_hand(
            words in prop::collection::vec(
                "[a-cA-CéÉßẞǅΐᾂᾊHſŉ\u{fdfa}\u{300}\u{316}\u{345}\u{344}\u{34f}\u{331}かガｶﾞ\u{3099}한\u{1112}\u{1161}\u{11ab}]{0,40}|\\PC{0,12}",
                1..4,
            ),
        ) {
            let mut folder = Folder::default();
            for word in &words {
                prop_assert_eq!(form(&mut folder, word), form_by_hand(word));
                prop_assert_eq!(form(&mut folder, &form_by_hand(word)), form_by_hand(word));
            }
        }
    }
}
