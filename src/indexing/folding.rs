//! One form for all spellings of a word: NFKC, full case folding, NFKC again.
//!
//! A word that is short and in NFKC already, as nearly all are, is folded as a
//! whole. Any other is folded character by character, as far as it is wanted:
//! one character may become eighteen, and combining marks are put in order
//! only when the run of them has ended, so nothing here may wait for the end of
//! a word or of a run. Both ways lead to the same form.

use icu_casemap::CaseMapper;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};

/// A word of so many bytes can't have more than thirty combining marks in a
/// row, when its characters are those of NFKC: a letter of two bytes may bring
/// three, and each further one takes two bytes.
const SHORT_BYTES: usize = 56;

/// Appends the folded form of a short word in NFKC; false where it is none, and
/// [`folded`] says its form.
pub(super) fn fold_short(word: &str, form: &mut String) -> bool {
    if word.len() > SHORT_BYTES || is_nfkc_quick(word.chars()) != IsNormalized::Yes {
        return false;
    }
    let folded = CaseMapper::new().fold_string(word);
    match is_nfkc_quick(folded.chars()) {
        IsNormalized::Yes => form.push_str(&folded),
        _ => form.extend(folded.nfkc()),
    }
    true
}

/// The characters of a word's folded form. Taking one costs what has to be
/// read for it, and there is a bound to that: a run of combining marks ends
/// after thirty.
pub(super) fn folded(word: &str) -> impl Iterator<Item = char> {
    let composed = word.chars().stream_safe().nfkc();
    composed.flat_map(fold_character).nfkc()
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

    #[test]
    fn no_character_folds_to_more_than_three() {
        let mut bytes = [0; 4];
        for character in '\0'..=char::MAX {
            let whole = CaseMapper::new().fold_string(character.encode_utf8(&mut bytes)).into_owned();
            assert_eq!(fold_character(character).collect::<String>(), whole, "{character:?}");
        }
    }

    /// Counts what is read of a word until so many characters of its form are there.
    fn read_for(word: &str, wanted: usize) -> usize {
        let mut read = 0;
        let characters = word.chars().inspect(|_| read += 1);
        let taken = characters.stream_safe().nfkc().flat_map(fold_character).nfkc().take(wanted).count();
        assert_eq!(taken, wanted);
        read
    }

    #[test]
    fn a_word_is_read_as_far_as_its_form_is_wanted() {
        for word in ["\u{fdfa}", "\u{300}", "\u{1112}\u{1161}\u{11ab}", "é", "\u{1f82}\u{345}"] {
            let read = read_for(&format!("a{}", word.repeat(100_000)), 256);
            assert!(read <= 4 * 256 + 64, "{read} characters of {word:?} were read");
        }
    }

    proptest! {
        #[test]
        fn both_ways_lead_to_the_same_form(word in "[a-cA-CéÉßẞǅΐᾂᾊ\u{300}\u{316}\u{345}かガ\u{3099}한]{0,28}|\\PC{0,12}") {
            let mut short = String::new();
            if fold_short(&word, &mut short) {
                prop_assert_eq!(folded(&word).collect::<String>(), short);
            }
            let composed: String = word.nfkc().collect();
            let caseless: String = CaseMapper::new().fold_string(&composed).nfkc().collect();
            if word.len() <= SHORT_BYTES {
                prop_assert_eq!(folded(&word).collect::<String>(), caseless);
            }
        }
    }
}
