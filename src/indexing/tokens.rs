//! Text into tokens: Unicode words (UAX #29), in one form for all spellings.
//!
//! A text is prepared first (`preparing`): invisible characters go, those of
//! compatibility and apostrophes become what they stand for. A word is brought to
//! NFKC, case-folded in full (`ß` and `SS` become `ss`, final and medial sigma the
//! same letter) and brought to NFKC again, since folding can undo it (`folding`).
//! Nothing is left out and nothing is stemmed but for Korean particles, so that a
//! query finds what its reader sees.
//!
//! A document has more tokens than words, so that it is found by what people type
//! of it; of a query each word is looked for as it stands.
//!
//! - A glued word (`john.doe`, `ThreadPoolExecutor`) is there whole and in its
//!   `parts`, a name with its signs (`C++`, `C#`, `.NET`) with and without them. A
//!   query's word is looked for with the signs that it has.
//! - A Korean word is there without its `particles`; what only may be one is there
//!   with and without it.
//! - Chinese and Japanese put no spaces between words, and UAX #29 cuts them into
//!   single characters. A run of such characters is indexed as its characters and
//!   its overlapping pairs (東京都: 東, 東京, 京, 京都, 都). A query looks for the
//!   pairs, which are selective enough to search by and need no dictionary, and
//!   for a character that stands alone (京) as it is.
//! - Thai, Lao, Khmer and Burmese are cut into words by `dictionaries`.
//!
//! A token counts or it doesn't: in a document's length a word counts once, and
//! none of what comes beside it; of a query's words a run is one.
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
use std::ops::{ControlFlow, Range};

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};
use unicode_segmentation::UnicodeSegmentation as _;

use super::ascii_words::ascii_words;
use super::dictionaries::{DictionarySegmenter, is_in_dictionaries, run_length};
use super::folding::Folder;
use super::particles::{may_end_with_particle, stems, without_sure_particles};
use super::parts::{for_each_part, is_glue, signs_of};
use super::preparing::{Prepared, next_stretch, prepare};
use crate::error::{Code, Error};
use crate::limits::{QUERY_BYTES_MAX, QUERY_WORDS_MAX, WORD_CHARACTERS_MAX};

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

/// What is kept between texts: pieces that were folded, and room.
#[derive(Default)]
pub(super) struct Tokenizer {
    folder: Folder,
    prepared: String,
    token: Token,
}

impl Tokenizer {
    /// Gives every token that a document is to be found by to `visit`, in order, and whether it counts
    /// in the document's length.
    pub(super) fn for_each_token(&mut self, text: &str, mut visit: impl FnMut(&str, bool)) {
        let _ = self.tokenize(text, Purpose::Document, &mut |token: &str, counts: bool| {
            visit(token, counts);
            Wanted::Continue(())
        });
        // A huge text's capacity isn't kept for the small ones behind it.
        const KEPT_BYTES: usize = 1 << 18;
        self.prepared.clear();
        self.prepared.shrink_to(KEPT_BYTES);
    }

    /// What it keeps, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.folder.bytes() + self.prepared.capacity() + self.token.text.capacity()
    }

    fn tokenize<V: FnMut(&str, bool) -> Wanted>(
        &mut self,
        text: &str,
        purpose: Purpose,
        visit: &mut V,
    ) -> Wanted {
        let Tokenizer { folder, prepared, token } = self;
        let mut cutter = Cutter { folder, token, purpose, visit, run: Run::default() };
        if text.is_ascii() {
            return cutter.ascii_tokens(text);
        }
        let mut rest = text;
        while let Some(stretch) = next_stretch(&mut rest) {
            let Prepared { text, needs_dictionary } = prepare(stretch, prepared);
            if text.is_ascii() {
                cutter.ascii_tokens(text)?;
            } else if needs_dictionary {
                cutter.tokens_with_dictionary(text)?;
            } else {
                cutter.unicode_tokens(text, 0..text.len())?;
            }
        }
        Wanted::Continue(())
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
/// Refused when it is longer than [`QUERY_BYTES_MAX`] or has more words than [`QUERY_WORDS_MAX`], a run of
/// Chinese or Japanese being one, and those that come again counted again; what stands behind the first
/// one too many is not looked at.
pub fn terms_of_query(text: &str) -> Result<Vec<QueryTerm>, Error> {
    let refused = |what: String| Err(Error::new(Code::BadRequest, what));
    if text.len() > QUERY_BYTES_MAX {
        return refused(format!("`query` has more bytes than the {QUERY_BYTES_MAX} that it may have"));
    }
    let mut terms: Vec<QueryTerm> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut words = 0;
    let mut add = |token: &str, counts: bool| {
        words += usize::from(counts);
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
    };
    if Tokenizer::default().tokenize(text, Purpose::Query, &mut add).is_break() {
        return refused(format!("`query` has more words than the {QUERY_WORDS_MAX} that it may have"));
    }
    Ok(terms)
}

/// A text that is being cut, and who takes its tokens.
struct Cutter<'a, V> {
    folder: &'a mut Folder,
    token: &'a mut Token,
    purpose: Purpose,
    visit: &'a mut V,
    run: Run,
}

impl<V: FnMut(&str, bool) -> Wanted> Cutter<'_, V> {
    fn ascii_tokens(&mut self, text: &str) -> Wanted {
        ascii_words(text.as_bytes())
            .try_for_each(|word| self.ascii_word_tokens(text, word.start, word.end, word.may_have_parts))
    }

    /// The tokens of a word of ASCII, in a text that needn't be.
    fn ascii_word_tokens(&mut self, text: &str, start: usize, end: usize, may_have_parts: bool) -> Wanted {
        const SHORT_BYTES: usize = 48;
        let word = &text[start..end];
        if word.len() > SHORT_BYTES {
            self.fold(word);
            return self.word_tokens(text, start, end, may_have_parts);
        }
        let mut lowered = std::mem::take(&mut self.token.lowered);
        lowered.clear();
        lowered.push_str(word);
        lowered.make_ascii_lowercase();
        let wanted = self.lowered_tokens(text, start..end, &lowered, may_have_parts);
        self.token.lowered = lowered;
        wanted
    }

    /// Gives a short word of ASCII, whose form is `folded`.
    fn lowered_tokens(
        &mut self,
        text: &str,
        Range { start, end }: Range<usize>,
        folded: &str,
        may_have_parts: bool,
    ) -> Wanted {
        let word = &text[start..end];
        let is_document = self.purpose == Purpose::Document;
        let signs = signs_of(text, start, end, is_document);
        if signs.is_none() || is_document {
            (self.visit)(folded, true)?;
        }
        if let Some(signs) = signs {
            self.signed(word, signs)?;
        }
        if may_have_parts && is_document {
            // Of ASCII a part's form is a part of the form.
            for_each_part(word, &mut |part| (self.visit)(&folded[part], false))?;
        }
        Wanted::Continue(())
    }

    /// Gives the name of which signs are part; in a document that has signs on both sides, also without the dot.
    fn signed(&mut self, word: &str, (dot, behind): (bool, &str)) -> Wanted {
        if dot && !behind.is_empty() && self.purpose == Purpose::Document {
            self.give_signed(word, (false, behind))?;
        }
        self.give_signed(word, (dot, behind))
    }

    fn give_signed(&mut self, word: &str, (dot, behind): (bool, &str)) -> Wanted {
        self.token.clear();
        if dot {
            let _ = self.token.push('.');
        }
        let _ = self.folder.fold(word, |character| self.token.push(character));
        // A longer word has the signs where nobody looks for them.
        if self.token.characters + behind.len() <= WORD_CHARACTERS_MAX {
            self.token.text.push_str(behind);
        }
        (self.visit)(&self.token.text, self.purpose == Purpose::Query)
    }

    fn tokens_with_dictionary(&mut self, text: &str) -> Wanted {
        let segmenter = DictionarySegmenter::new();
        let mut position = 0;
        while position < text.len() {
            let start =
                text[position..].find(is_in_dictionaries).map_or(text.len(), |place| position + place);
            self.unicode_tokens(text, position..start)?;
            position = start + run_length(&text[start..]);
            // Spellings that are canonically the same would be cut differently.
            let run = &text[start..position];
            let composed: String;
            let run = match is_nfc_quick(run.chars()) {
                IsNormalized::Yes => run,
                _ => {
                    composed = run.chars().stream_safe().nfc().collect();
                    &composed
                }
            };
            segmenter.for_each_word(run, &mut |word| match word.chars().any(char::is_alphanumeric) {
                true => self.fold_and_give(word, true),
                false => Wanted::Continue(()),
            })?;
        }
        Wanted::Continue(())
    }

    /// The tokens of a range of a text, which begins and ends where words do.
    fn unicode_tokens(&mut self, text: &str, range: Range<usize>) -> Wanted {
        for (place, word) in text[range.clone()].unicode_word_indices() {
            // Marks behind a space are a word with it.
            let (end, word) = (range.start + place + word.len(), word.trim_start());
            let start = end - word.len();
            if word.is_ascii() {
                self.run.end(self.purpose, self.visit)?;
                let bytes = word.as_bytes();
                let may_have_parts = bytes.iter().enumerate().any(|(place, byte)| {
                    !byte.is_ascii_alphanumeric() || (place > 0 && byte.is_ascii_uppercase())
                });
                self.ascii_word_tokens(text, start, end, may_have_parts)?;
                continue;
            }
            self.fold(word);
            if !self.token.is_unspaced {
                self.run.end(self.purpose, self.visit)?;
                let may_have_parts =
                    word.chars().any(is_glue) || !self.token.is_as_written_behind_first(word);
                self.word_tokens(text, start, end, may_have_parts)?;
                continue;
            }
            if start != self.run.end_position {
                self.run.end(self.purpose, self.visit)?;
            }
            self.push_to_run(word, true)?;
            self.run.end_position = end;
        }
        self.run.end(self.purpose, self.visit)
    }

    fn fold(&mut self, word: &str) {
        self.token.clear();
        let _ = self.folder.fold(word, |character| self.token.push(character));
    }

    /// The tokens of a word that has been folded.
    fn word_tokens(&mut self, text: &str, start: usize, end: usize, may_have_parts: bool) -> Wanted {
        let word = &text[start..end];
        let is_document = self.purpose == Purpose::Document;
        let signs = signs_of(text, start, end, is_document);
        if !is_document {
            return match signs {
                Some(signs) => self.signed(word, signs),
                None => self.give(true),
            };
        }
        self.give(true)?;
        if let Some(signs) = signs {
            self.signed(word, signs)?;
        }
        if may_have_parts {
            for_each_part(word, &mut |part| self.fold_and_give(&word[part], false))?;
        }
        Wanted::Continue(())
    }

    /// Gives a word, or part of one, as it stands.
    fn fold_and_give(&mut self, word: &str, counts: bool) -> Wanted {
        self.fold(word);
        if self.token.is_unspaced {
            self.push_to_run(word, counts)?;
            return self.run.end(self.purpose, self.visit);
        }
        self.give(counts)
    }

    /// Gives the token without particles; in a document, also without what may be one.
    fn give(&mut self, counts: bool) -> Wanted {
        let Token { text, characters, .. } = &*self.token;
        if *characters >= WORD_CHARACTERS_MAX || !may_end_with_particle(text) {
            return (self.visit)(text, counts);
        }
        let sure = without_sure_particles(text);
        (self.visit)(sure, counts)?;
        match self.purpose {
            Purpose::Document => stems(sure, text).try_for_each(|stem| (self.visit)(stem, false)),
            Purpose::Query => Wanted::Continue(()),
        }
    }

    /// Adds a word whose token is of a script without spaces to the run.
    fn push_to_run(&mut self, word: &str, counts: bool) -> Wanted {
        let Cutter { folder, token, purpose, visit, run } = self;
        let mut push = |character: char| run.push(character, *purpose, counts, visit);
        if token.characters < WORD_CHARACTERS_MAX {
            token.text.chars().try_for_each(push)
        } else {
            // Such a word has no end of its own: all of it is characters and pairs.
            folder.fold(word, &mut push)
        }
    }
}

/// The first characters of a word's form, which decide what it is.
#[derive(Default)]
struct Token {
    text: String,
    /// Room for a short word of ASCII.
    lowered: String,
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

    /// Whether folding has changed nothing of the word behind its first letter: so there is no capital.
    fn is_as_written_behind_first(&self, word: &str) -> bool {
        let behind_first = |text: &str| {
            let first = text.chars().next().map_or(0, char::len_utf8);
            text.len() - first
        };
        let (form, written) = (behind_first(&self.text), behind_first(word));
        form == written && self.text.as_bytes().ends_with(&word.as_bytes()[word.len() - written..])
    }
}

/// A run of characters of a script without spaces.
#[derive(Default)]
struct Run {
    /// The last character as a token of its own, behind the one before it.
    pair: String,
    characters: usize,
    /// Where the run ends in the text, in bytes.
    end_position: usize,
}

impl Run {
    /// In a document every character and every pair counts, of a query's run one.
    fn push(
        &mut self,
        character: char,
        purpose: Purpose,
        counts: bool,
        visit: &mut impl FnMut(&str, bool) -> Wanted,
    ) -> Wanted {
        if self.characters >= 2 {
            let first = self.pair.chars().next().map_or(0, char::len_utf8);
            self.pair.drain(..first);
        }
        self.pair.push(character);
        self.characters += 1;
        let is_document = purpose == Purpose::Document;
        if self.characters >= 2 {
            visit(&self.pair, counts && (is_document || self.characters == 2))?;
        }
        if is_document { visit(character.encode_utf8(&mut [0; 4]), counts) } else { Wanted::Continue(()) }
    }

    fn end(&mut self, purpose: Purpose, visit: &mut impl FnMut(&str, bool) -> Wanted) -> Wanted {
        let alone = self.characters == 1 && purpose == Purpose::Query;
        let wanted = if alone { visit(&self.pair, true) } else { Wanted::Continue(()) };
        self.pair.clear();
        self.characters = 0;
        wanted
    }
}

/// Whether the character belongs to Chinese or Japanese writing (Han, Kana,
/// Bopomofo and their marks), or to another script that has neither spaces
/// between words nor a dictionary (Tai Le, New Tai Lue, Tai Tham, Tai Viet,
/// Ahom). Korean puts spaces between words.
fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character),
        0x2e80..=0x2fdf | 0x3005..=0x3007 | 0x3021..=0x3029 | 0x3031..=0x3035 | 0x3038..=0x303c
        | 0x3041..=0x30ff | 0x3105..=0x312f | 0x31a0..=0x31bf | 0x31f0..=0x31ff
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x1aff0..=0x1b16f | 0x20000..=0x3fffd
        | 0x1950..=0x19cf | 0x1a20..=0x1a7c | 0xaa80..=0xaadf | 0x11700..=0x1172b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use icu_segmenter::LineSegmenter;
    use icu_segmenter::options::LineBreakOptions;

    use super::*;

    fn all(text: &str, purpose: Purpose) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        let _ = Tokenizer::default().tokenize(text, purpose, &mut |token: &str, counts: bool| {
            found.push((token.to_owned(), counts));
            Wanted::Continue(())
        });
        found
    }

    fn names(tokens: Vec<(String, bool)>) -> Vec<String> {
        tokens.into_iter().map(|(token, _)| token).collect()
    }

    /// A query's tokens, as often as they stand there.
    fn queried(text: &str) -> Vec<String> {
        names(all(text, Purpose::Query))
    }

    fn tokens(text: &str) -> Vec<String> {
        names(all(text, Purpose::Document))
    }

    /// How long a document is by the words that it has.
    fn length(text: &str) -> usize {
        all(text, Purpose::Document).iter().filter(|(_, counts)| *counts).count()
    }

    /// Whether a document is found by a query, all of whose words it must have.
    fn finds(query: &str, document: &str) -> bool {
        let (wanted, there) = (queried(query), tokens(document));
        !wanted.is_empty() && wanted.iter().all(|word| there.contains(word))
    }

    #[track_caller]
    fn assert_found(document: &str, queries: &[&str]) {
        for query in queries {
            assert!(
                finds(query, document),
                "{query:?} finds {document:?}: {:?} of {:?}",
                queried(query),
                tokens(document)
            );
        }
    }

    #[track_caller]
    fn assert_not_found(document: &str, queries: &[&str]) {
        for query in queries {
            assert!(!finds(query, document), "{query:?} finds {document:?}: {:?}", tokens(document));
        }
    }

    #[test]
    fn invisible_characters_are_as_if_they_were_not_there() {
        for (document, query) in [
            ("Gesamt\u{ad}konzept", "Gesamtkonzept"),
            ("invoice\u{200e}", "invoice"),
            ("\u{202a}invoice\u{202c} \u{2066}4711\u{2069}", "invoice 4711"),
            ("می\u{200c}خواهم", "میخواهم"),
            ("zero\u{200b}width", "zerowidth"),
            ("word\u{2060}joiner", "wordjoiner"),
            ("\u{feff}first", "first"),
            ("1\u{fe0f}\u{20e3}", "1"),
            ("葛\u{e0100}城", "葛城"),
            ("e\u{20dd}x", "ex"),
            ("ᠮᠣᠩ\u{180b}", "ᠮᠣᠩ"),
            ("combining\u{34f}joiner", "combiningjoiner"),
            ("mo\u{fe00}de", "mode"),
            ("tag\u{e0041}ged", "tagged"),
        ] {
            assert_found(document, &[query]);
            assert_found(query, &[document]);
            assert_eq!(tokens(document), tokens(query), "{document:?}");
        }
    }

    #[test]
    fn spaces_of_all_kinds_separate() {
        for space in [
            '\u{a0}', '\u{1680}', '\u{2003}', '\u{2009}', '\u{202f}', '\u{205f}', '\u{3000}', '\u{2028}',
            '\u{85}', '\u{3164}',
        ] {
            assert_eq!(tokens(&format!("3{space}PM")), ["3", "pm"], "{space:?}");
            assert_eq!(tokens(&format!("Bonjour{space}! là")), ["bonjour", "là"], "{space:?}");
            assert_eq!(tokens(&format!("für{space}uns")), ["für", "uns"], "{space:?}");
        }
    }

    #[test]
    fn characters_of_compatibility_are_what_they_stand_for() {
        assert_found("⽇本", &["日本", "日"]);
        assert_found("№ 5", &["no 5", "№ 5"]);
        assert_found("㈱日立", &["株", "日立", "㈱"]);
        assert_found("㍿日立", &["株式会社", "日立"]);
        assert_found("5 ㎏", &["kg"]);
        assert_found("10㌫ ㎯", &["㌫", "パーセント", "10", "㎯"]);
        assert_found("ŉ man", &["'n man", "’n"]);
        assert_found("का ि की", &["ि"]);
        assert_found("дом №12", &["12", "№ 12", "№12", "no"]);
        assert_found("84㎡", &["84", "84 ㎡", "84㎡", "84 m2"]);
        assert_found("₨500 ﷼700", &["500", "rs", "700", "ریال"]);
        assert_found("Ｃ＋＋ ＵＳＥＲ＿ＩＤ", &["c++", "user_id", "user"]);
        assert_found("\u{fdf2}", &["الله", "\u{fdf2}"]);
        // A ligature of a phrase stays one word.
        assert_eq!(tokens("\u{fdfa}").len(), 1);
        assert_found("H₂O", &["H2O"]);
        // Signs behind a word are none of it, and numbers in circles stand alone.
        assert_found("Java™ word¹ 1½ ①②", &["java", "word", "1", "2"]);
    }

    #[test]
    fn apostrophes_are_one_letter() {
        for apostrophe in ["'", "’", "‘", "‛", "ʼ", "ʻ", "＇", "՚", "ꞌ", "´"] {
            let document = format!("Ender{apostrophe}s l{apostrophe}école Hawai{apostrophe}i");
            assert_found(&document, &["Ender's", "Ender’s", "ender", "l'école", "école", "Hawaiʻi"]);
            assert_eq!(length(&document), 3);
        }
        assert_found("Alice's", &["alice", "Alice’s"]);
        assert_eq!(tokens("‘quoted’"), ["quoted"]);
        assert_found("צה״ל", &["צה\"ל"]);
    }

    #[test]
    fn parts_of_glued_words_are_found_and_the_whole() {
        assert_found(
            "john.doe@example.com",
            &["doe", "john", "example", "example.com", "john.doe", "john.doe@example.com"],
        );
        assert_found("asyncio.run(main())", &["run", "asyncio", "asyncio.run", "main"]);
        assert_found("Node.js", &["node", "node.js", "js"]);
        assert_found("it works.Really", &["really", "works"]);
        assert_found(
            "report_2020_final.pdf",
            &["final", "pdf", "report", "2020", "report_2020_final", "report_2020_final.pdf"],
        );
        assert_found(
            "level:error user_id=42",
            &["error", "level", "level:error", "user", "id", "user_id", "42"],
        );
        assert_found("e-mail", &["mail", "e-mail"]);
        assert_found("1,2,3 and 3.14", &["2", "1,2,3", "3.14"]);
        assert_found("__init__", &["init", "__init__"]);
        assert_found("col·lecció", &["lecció", "col·lecció"]);
        assert_found("имя_файла.тхт", &["файла", "тхт", "имя_файла"]);
        assert_found("カタカナ_ab", &["カタカナ", "ab"]);
        assert_not_found("example.com", &["www.example.com", "ample"]);
        // A dot between digits is no glue: numbers, versions and addresses stay whole.
        assert_eq!(tokens("10.1.2.3 v2.4 3.14"), ["10.1.2.3", "v2.4", "3.14"]);
        assert_eq!(queried("john.doe"), ["john.doe"]);
        assert_eq!(tokens("a_b.c"), ["a_b.c", "a", "b", "a_b", "c"]);
    }

    #[test]
    fn parts_of_words_with_capitals_are_found() {
        assert_found("ThreadPoolExecutor", &["thread pool", "threadpoolexecutor", "ThreadPoolExecutor"]);
        assert_eq!(tokens("HTTPServer"), ["httpserver", "http", "server"]);
        assert_eq!(tokens("getHTTPResponse2Xml"), ["gethttpresponse2xml", "get", "http", "response2", "xml"]);
        assert_eq!(tokens("ÉcoleNormale"), ["écolenormale", "école", "normale"]);
        assert_eq!(tokens("E\u{301}coleNormale"), ["écolenormale", "école", "normale"]);
        assert_eq!(tokens("МояПеременная"), ["мояпеременная", "моя", "переменная"]);
        for whole in ["URLs", "HELLO", "Hello", "hello", "A1B2", "ÉCOLE", "x2", "2x"] {
            assert_eq!(tokens(whole).len(), 1, "{whole}");
        }
    }

    #[test]
    fn names_are_there_with_their_signs_and_without() {
        assert_found("We write C++ and C#.", &["c++", "C#", "c"]);
        assert_found("C++17", &["c++", "17", "C++17"]);
        assert_found("C#/.NET developer", &["c#", ".net", "C#/.NET"]);
        assert_found("C#、.NET、Java 使用.NET框架 学习C#语言", &["c#", ".net", "java"]);
        assert_found("~/.bashrc /srv/app/.env", &[".bashrc", "bashrc", ".env", "/srv/app/.env"]);
        assert_found("C#을 배우다", &["c#", "C#을"]);
        assert_found("(.NET) on", &[".net", "net"]);
        assert_found(".gitignore", &[".gitignore", "gitignore"]);
        assert_found("é C++ „.NET“ F#", &["c++", ".net", "f#"]);
        assert_not_found("vitamin c and the net", &["c++", "c#", ".net"]);
        assert_not_found("issue C#5, a+b, end. Net", &["c#", "a++", ".net"]);
        assert_not_found("asp.net", &[".net"]);
        assert_eq!(length("C++ C# .NET"), 3);
        assert_eq!(queried("C++ .NET c"), ["c++", ".net", "c"]);
    }

    #[test]
    fn southeast_asian_words_come_from_dictionaries() {
        assert_found("ฉันมีแมวสองตัว", &["แมว", "สองตัว", "ฉัน มี"]);
        assert_not_found("กิโลเมตรและนาที", &["กิน"]);
        assert_found("กินข้าวแล้วหรือยัง 5 นาที", &["กิน", "ข้าว", "นาที"]);
        assert_found("ใช้Pythonเขียน", &["python", "เขียน"]);
        assert_found("ข้อยมีแมว ຂ້ອຍມີແມວສອງໂຕ", &["ແມວ", "ສອງ"]);
        assert_not_found("ພາສາລາວ", &["ສາ"]);
        assert_found("ខ្ញុំមានឆ្មាពីរក្បាល", &["ឆ្មា", "ពីរ"]);
        assert_not_found("ខ្ញុំមានឆ្មាពីរក្បាល", &["មា"]);
        assert_found("ကျွန်တော်မှာကြောင်နှစ်ကောင်ရှိတယ်", &["ကြောင်", "ကျွန်တော်"]);
        assert_not_found("ကျွန်တော်မှာကြောင်နှစ်ကောင်ရှိတယ်", &["ကျ"]);
        assert_eq!(length("ฉันมีแมวสองตัว"), 5);
        // However the vowel `am` is typed, and whatever invisible stands between words.
        for water in ["น้ำท่วม", "น\u{e49}\u{e4d}\u{e32}ท่วม", "น\u{e4d}\u{e49}\u{e32}ท่วม", "น้ำ\u{200b}ท่วม"]
        {
            assert_found(water, &["น้ำ", "ท่วม", "น\u{e49}\u{e4d}\u{e32}"]);
            assert_eq!(tokens(water).len(), 2, "{water}");
        }
        assert_found("ນ\u{ec9}\u{ecd}\u{eb2}", &["ນ້ຳ"]);
    }

    #[test]
    fn spellings_that_are_the_same_are_cut_the_same() {
        for (one, other) in [
            ("\u{1014}\u{103e}\u{1004}\u{1037}\u{103a}", "\u{1014}\u{103e}\u{1004}\u{103a}\u{1037}"),
            ("\u{1026}\u{1038}\u{101c}\u{1031}\u{1038}", "\u{1025}\u{102e}\u{1038}\u{101c}\u{1031}\u{1038}"),
            ("\u{edc}\u{eb6}\u{ec8}\u{e87}", "\u{eab}\u{e99}\u{eb6}\u{ec8}\u{e87}"),
            ("ຂ້ອຍມີໝາໜຶ່ງໂຕ", "ຂ້ອຍມີຫມາຫນຶ່ງໂຕ"),
        ] {
            assert_eq!(tokens(one), tokens(other), "{one}");
            assert_found(one, &[other]);
            assert_found(&format!("a {other} b"), &[one]);
        }
    }

    #[test]
    fn a_long_run_is_cut_as_a_short_one() {
        for unit in
            ["ฉันมีแมวสองตัว", "ຂ້ອຍມີແມວສອງໂຕ", "ខ្ញុំមានឆ្មាពីរក្បាល", "ကျွန်တော်မှာကြောင်နှစ်ကောင်ရှိတယ်", "ก\u{e49}\u{e49}"]
        {
            let whole = LineSegmenter::new_dictionary(LineBreakOptions::default());
            let run = unit.repeat(100);
            let places: Vec<usize> = whole.segment_str(&run).collect();
            let mut expected = Vec::new();
            for ends in places.windows(2) {
                expected.extend(tokens(&run[ends[0]..ends[1]]));
            }
            assert_eq!(tokens(&run), expected, "{unit}");
        }
    }

    #[test]
    fn korean_words_are_found_without_their_particles() {
        assert_found("학교에 학교에서는", &["학교", "학교에", "학교에서", "학교를"]);
        assert_found("고양이가 물을 마신다", &["고양이", "물", "마신다"]);
        assert_found("Python을 API로부터", &["python", "api"]);
        assert_found("\u{1112}\u{1161}\u{11a8}\u{1100}\u{116d}\u{110b}\u{1166}", &["학교"]);
        assert_found("학교가", &["학교는", "학교를", "학교"]);
        assert_eq!(queried("학교에 학교에서는"), ["학교에", "학교"]);
        assert_eq!(length("학교에서는"), 1);
    }

    #[test]
    fn words_by_unicode_rules() {
        assert_eq!(
            tokens("The quick (\"brown\") fox can't jump 32.3 feet, right?"),
            ["the", "quick", "brown", "fox", "can't", "can", "t", "jump", "32.3", "feet", "right"]
        );
        assert_eq!(
            queried("e.g. 1,000;5 _ __ snake_case a_1 a.1 1.a 3.. .5 o'"),
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
        for word in ["a", "é", "ﬁ", "京都府", "か\u{3099}き", "แมว", "c++", "a.b"] {
            let longest = terms_of_query(&vec![word; QUERY_WORDS_MAX].join(" ")).unwrap();
            assert_eq!(longest[0].count, 1_024, "{word}");
            let one_more = terms_of_query(&vec![word; QUERY_WORDS_MAX + 1].join(" ")).unwrap_err();
            assert_eq!(one_more.code, Code::BadRequest, "{word}");
            assert!(one_more.message.contains("more words than the 1024"), "{}", one_more.message);
            let text = format!("{word} ").repeat(100_000);
            let (mut words, mut visited) = (0, 0);
            let read = Tokenizer::default().tokenize(&text, Purpose::Query, &mut |_: &str, counts: bool| {
                words += usize::from(counts);
                visited += 1;
                if words > QUERY_WORDS_MAX { Wanted::Break(()) } else { Wanted::Continue(()) }
            });
            assert_eq!((read.is_break(), words), (true, QUERY_WORDS_MAX + 1), "{word}");
            assert!(visited <= 2 * words, "{word}");
        }
        // Without spaces the words of a dictionary count each, Chinese as one.
        assert!(terms_of_query(&"แมวสอง".repeat(513)).is_err());
        assert_eq!(terms_of_query(&"京".repeat(20_000)).unwrap()[0].count, 19_999);
    }

    #[test]
    fn a_query_that_is_too_long_is_refused_unread() {
        assert!(terms_of_query(&"京".repeat(QUERY_BYTES_MAX / 3)).is_ok());
        assert!(terms_of_query(&"a".repeat(QUERY_BYTES_MAX)).is_ok());
        for text in
            ["a".repeat(QUERY_BYTES_MAX + 1), " ".repeat(QUERY_BYTES_MAX + 1), "京".repeat(QUERY_BYTES_MAX)]
        {
            let error = terms_of_query(&text).unwrap_err();
            assert_eq!(error.code, Code::BadRequest);
            assert!(error.message.contains("more bytes than the 65536"), "{}", error.message);
        }
    }

    #[test]
    fn of_a_glued_word_without_end_every_part_is_given_once() {
        const COUNT: usize = 50_000;
        for (unit, parts) in [
            ("a.", COUNT),
            ("ab_", COUNT),
            ("é'", COUNT),
            ("aB", COUNT + 1),
            ("жЖ", COUNT + 1),
            ("a_b.", 3 * COUNT),
            ("1,", COUNT),
        ] {
            let given = all(&unit.repeat(COUNT), Purpose::Document);
            assert_eq!(
                (given.len(), given.iter().filter(|(_, counts)| *counts).count()),
                (parts + 1, 1),
                "{unit}"
            );
            assert!(given.iter().all(|(token, _)| token.chars().count() <= WORD_CHARACTERS_MAX));
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
        /// A document that is typed as a query is found, whatever it is, but for names with signs that
        /// something stands in front of.
        #[test]
        fn a_document_is_found_by_its_own_text(text in any::<String>(), mixed in "[a-cA-C_.'’éÉß학교에가๑กา\u{e4d}\u{e32}\u{e49}京カ+# \u{ad}\u{200d}\u{301}]{0,30}") {
            for text in [text, mixed] {
                let there = tokens(&text);
                for word in queried(&text) {
                    prop_assert!(there.contains(&word), "{word:?} of {there:?}");
                }
            }
        }

        #[test]
        fn the_ascii_path_gives_what_the_unicode_path_gives(text in "[a-cA-C0-2s_.:,;' \\-\"\\t\\x00+#(]{0,30}") {
            // Without a character that isn't ASCII the library has a path of its own, too.
            let longer = format!("{text} é");
            let mut expected = Vec::new();
            for purpose in [Purpose::Document, Purpose::Query] {
                expected.clear();
                let mut visit = |token: &str, counts: bool| {
                    expected.push((token.to_owned(), counts));
                    Wanted::Continue(())
                };
                let (folder, token) = (&mut Folder::default(), &mut Token::default());
                let mut cutter = Cutter { folder, token, purpose, visit: &mut visit, run: Run::default() };
                let _ = cutter.unicode_tokens(&longer, 0..longer.len());
                prop_assert_eq!(expected.pop(), Some(("é".to_owned(), true)));
                prop_assert_eq!(&all(&text, purpose), &expected);
            }
        }

        #[test]
        fn a_text_is_cut_as_if_it_were_one_stretch(text in "[a-cA-C.'’éß학에กา京+#\u{ad}\u{202f}\n \t]{0,80}") {
            let mut expected = Vec::new();
            let mut visit = |token: &str, counts: bool| {
                expected.push((token.to_owned(), counts));
                Wanted::Continue(())
            };
            let (folder, token) = (&mut Folder::default(), &mut Token::default());
            let purpose = Purpose::Document;
            let mut cutter = Cutter { folder, token, purpose, visit: &mut visit, run: Run::default() };
            let mut buffer = String::new();
            let _ = cutter.tokens_with_dictionary(prepare(&text, &mut buffer).text);
            prop_assert_eq!(all(&text, purpose), expected);
        }

        #[test]
        fn folding_a_token_again_changes_nothing(text in any::<String>(), mixed in "[a-cA-C_.'’éÉß학교에가๑กา\u{e4d}\u{e32}\u{e49}京カ+# \u{ad}\u{200d}\u{301}]{0,30}") {
            for token in tokens(&text).into_iter().chain(tokens(&mixed)) {
                let mut again = Token::default();
                again.clear();
                let _ = Folder::default().fold(&token, |character| again.push(character));
                prop_assert_eq!(&again.text, &token);
            }
        }
    }
}
