//! Words of Thai, Lao, Khmer and Burmese, which are written without spaces.
//!
//! UAX #29 leaves them to dictionaries. `icu_segmenter` has one for each of the
//! four, and takes the longest word that the text begins with, again and again:
//! what it finds depends on nothing in front, so that a text is cut in windows
//! that each begin where a word does. Its neural models find compounds' parts
//! more often, but take a hundred times as long, and cut a word differently as
//! what stands beside it differs, so that a query would miss it.

use std::ops::ControlFlow;

use icu_segmenter::options::LineBreakOptions;
use icu_segmenter::{LineSegmenter, LineSegmenterBorrowed};

/// How much is cut at once: the library takes memory for it.
const WINDOW_BYTES: usize = if cfg!(test) { 400 } else { 1 << 13 };
/// Longer than each word of the dictionaries: what ends so near to the window's end may be cut otherwise.
const MARGIN_BYTES: usize = if cfg!(test) { 300 } else { 1 << 10 };

/// Whether the character is a letter or a mark of one of the four scripts.
pub(super) fn is_in_dictionaries(character: char) -> bool {
    matches!(u32::from(character),
        0xe01..=0xe3a | 0xe40..=0xe4e | 0xe80..=0xecf | 0xedc..=0xedf
        | 0x1000..=0x103f | 0x1050..=0x108f | 0x109a..=0x109d | 0x1780..=0x17d3 | 0x17d7 | 0x17dc..=0x17dd
        | 0xa9e0..=0xa9ef | 0xa9fa..=0xa9fe | 0xaa60..=0xaa7f)
}

/// The length of the run at the front of `text` that begins with a character of the four scripts.
pub(super) fn run_length(text: &str) -> usize {
    text.find(|character| !is_in_dictionaries(character)).unwrap_or(text.len())
}

/// Cuts runs into words.
pub(super) struct DictionarySegmenter {
    segmenter: LineSegmenterBorrowed<'static>,
}

impl DictionarySegmenter {
    /// The library's segmenter of lines is the one that has these dictionaries without that of Chinese and
    /// Japanese, of two megabytes. In such a run lines break between words.
    pub(super) fn new() -> DictionarySegmenter {
        DictionarySegmenter { segmenter: LineSegmenter::new_dictionary(LineBreakOptions::default()) }
    }

    /// Gives the words of a run to `visit`.
    pub(super) fn for_each_word(
        &self,
        run: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut rest = run;
        while !rest.is_empty() {
            let mut end = WINDOW_BYTES.min(rest.len());
            while !rest.is_char_boundary(end) {
                end += 1;
            }
            let sure = if end == rest.len() { end } else { end - MARGIN_BYTES };
            let mut cut = 0;
            for place in self.segmenter.segment_str(&rest[..end]).filter(|place| *place > 0) {
                // The first one is taken in any case, so that there is an end.
                if place > sure && cut > 0 {
                    break;
                }
                visit(&rest[cut..place])?;
                cut = place;
            }
            if cut == 0 {
                return ControlFlow::Continue(());
            }
            rest = &rest[cut..];
        }
        ControlFlow::Continue(())
    }
}
