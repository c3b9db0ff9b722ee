//! `search_text`: what the shards' indexes are asked.
//!
//! BM25 needs to know how common the words are over all shards, or a score would
//! depend on where a key happens to live. These statistics come
//!
//! - from the cursor, where there is one: the pages of one search have one order;
//! - from the one shard, where there is no other;
//! - from a question to all shards, which those answer wholly in which few match.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::cursor::{TextCursor, not_a_cursor};
use super::plan::{Part, Progress, Resume};
use crate::error::Error;
use crate::indexing::{
    Budget, GivenUp, Indexes, QueryTerm, TEXT_REVISION, TextAsked, TextStatistics, TextStep, terms_of_query,
};
use crate::limits::QUERY_WORDS_MAX;
use crate::messaging::Match;

/// Which words, and which page of the documents. Clones share what is worked out.
#[derive(Clone, Debug)]
pub struct TextQuery {
    /// The words as they came, in UTF-8.
    text: Bytes,
    /// What they come to. The first shard that is asked works it out, for all: it may be long, and the
    /// threads of connections have others to serve.
    terms: Arc<OnceLock<Result<Vec<QueryTerm>, Error>>>,
    /// Of all shards, as soon as they are known.
    statistics: Arc<OnceLock<TextStatistics>>,
    /// Whether all must occur.
    pub matching: Match,
    /// Keys must begin with this.
    pub prefix: Option<Bytes>,
    /// The page begins behind this score and key.
    after: Option<(f64, Bytes)>,
    /// Items in the page.
    pub limit: usize,
}

impl TextQuery {
    /// The documents that hold these words, from the best one on.
    pub fn new(text: Bytes, matching: Match, prefix: Option<Bytes>, limit: usize) -> TextQuery {
        let (terms, statistics) = Default::default();
        TextQuery { text, terms, statistics, matching, prefix, after: None, limit }
    }

    /// The same search from a cursor on.
    ///
    /// # Errors
    ///
    /// `bad_request`: it is none, or another search's.
    pub fn behind(self, cursor: &Bytes) -> Result<TextQuery, Error> {
        let TextCursor { statistics, score, key, .. } = TextCursor::decode(cursor, self.fingerprint())?;
        let after = Some((score, cursor.slice_ref(key)));
        Ok(TextQuery { after, statistics: Arc::new(OnceLock::from(statistics)), ..self })
    }

    /// What tells this search from others, beside its page.
    pub(super) fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let matching: &[u8] = match self.matching {
            Match::All => b"all",
            Match::Any => b"any",
        };
        let prefix = self.prefix.as_deref().unwrap_or_default();
        hasher.update(&TEXT_REVISION.to_le_bytes());
        hasher.update(matching);
        hasher.update(&(prefix.len() as u64).to_le_bytes());
        hasher.update(prefix);
        hasher.update(&self.text);
        hasher.finalize()
    }

    /// What many words come to isn't kept until the shards are asked again, of which many may wait.
    pub(super) fn forget_many_terms(&mut self) {
        if self.terms().is_ok_and(|terms| terms.len() > QUERY_WORDS_MAX) {
            self.terms = Arc::default();
        }
    }

    /// Nothing more is asked: what was worked out is not kept until somebody has read the reply.
    pub(super) fn forget(&mut self) {
        (self.terms, self.statistics) = Default::default();
    }

    /// The same words, of which any may occur, to count the documents.
    pub(super) fn any(&self) -> TextQuery {
        TextQuery { matching: Match::Any, after: None, limit: 1, ..self.clone() }
    }

    /// The words, each once, folded as the index folds them.
    pub(super) fn terms(&self) -> Result<&[QueryTerm], Error> {
        let terms = self.terms.get_or_init(|| terms_of_query(&String::from_utf8_lossy(&self.text)));
        terms.as_deref().map_err(Clone::clone)
    }

    pub(super) fn statistics(&self) -> Option<&TextStatistics> {
        self.statistics.get()
    }

    /// The statistics of all shards are known.
    pub(super) fn learn(&self, statistics: TextStatistics) -> &TextStatistics {
        self.statistics.get_or_init(|| statistics)
    }

    /// A shard's share of the statistics, and its matches where they are few.
    pub(super) fn count(&self, indexes: &Indexes) -> Result<Part, Error> {
        let terms = self.terms()?;
        let few = indexes.few_text_matches(terms, self.matching, self.prefix.as_deref());
        Ok(Part::TextStatistics(indexes.text_statistics(terms), few))
    }

    /// A shard's share of the page: from the beginning, or where it said to go on. Statistics that aren't
    /// known are its own.
    pub(super) fn rank(
        &self,
        indexes: &Indexes,
        resume: Option<Resume>,
        budget: &Budget<'_>,
    ) -> Result<Progress, GivenUp> {
        let terms = match self.terms() {
            Ok(terms) => terms,
            Err(error) => return Ok(Progress::Done(Err(error))),
        };
        let statistics = self.statistics.get_or_init(|| indexes.text_statistics(terms));
        if statistics.document_frequency.len() != terms.len() {
            // The cursor that brought them was not encoded by a node.
            return Ok(Progress::Done(Err(not_a_cursor())));
        }
        let asked = TextAsked {
            terms,
            matching: self.matching,
            prefix: self.prefix.as_deref(),
            statistics,
            after: self.after.as_ref().map(|(score, key)| (*score, &key[..])),
            limit: self.limit,
        };
        let under_way = match resume {
            Some(Resume::Text(search)) => Some(search),
            _ => None,
        };
        Ok(match indexes.search_text(&asked, under_way, budget)? {
            TextStep::Done(page) => Progress::Done(Ok(Part::Text(page))),
            TextStep::GoOn(search) => Progress::GoOn(Resume::Text(search)),
        })
    }

    /// How many documents a shard has that hold any of the words; nothing, where that takes too long to be counted.
    pub(super) fn count_any(
        &self,
        indexes: &Indexes,
        resume: Option<Resume>,
        budget: &Budget<'_>,
    ) -> Result<Progress, GivenUp> {
        // With a prefix the documents are gone through, in slices.
        const POSTINGS_MAX: u64 = 1 << 23;
        let terms = match self.terms() {
            Ok(terms) => terms,
            Err(error) => return Ok(Progress::Done(Err(error))),
        };
        let counted = |total| Ok(Progress::Done(Ok(Part::TextTotal(total))));
        if self.prefix.is_none() {
            return counted(indexes.count_any_term(terms));
        }
        if resume.is_none() && indexes.postings_of(terms) > POSTINGS_MAX {
            return counted(None);
        }
        match self.rank(indexes, resume, budget)? {
            Progress::Done(Ok(Part::Text(page))) => counted(Some(page.total)),
            other => Ok(other),
        }
    }
}
