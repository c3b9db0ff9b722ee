//! What became of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::protocol::{Refusal, Verdict};

/// Kinds of wrong replies that are kept word by word; one is enough to fail.
const FAULTS_MAX: usize = 5;
/// A minute and more: the longest latency that is told apart.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// What became of a run.
pub struct Outcome {
    /// Requests that were answered, rightly or not.
    pub answered: u64,
    /// Of them, reads that found no key.
    pub misses: u64,
    /// Of them, errors that the server told, counted.
    pub refused: BTreeMap<Refusal, u64>,
    /// Of them, replies that were not ones to their requests.
    pub wrong: u64,
    /// Requests that were sent, perhaps in part, and got no reply: nobody knows
    /// whether they happened.
    pub unanswered: u64,
    /// What was wrong, in words.
    pub faults: Vec<String>,
    /// Whether someone asked to stop early.
    pub is_interrupted: bool,
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// Processor time of the generator in that time.
    pub generator_cpu: Duration,
    /// From sending a batch to reading a reply of it, for each reply, in ns.
    pub latency_ns: Histogram<u64>,
}

impl Outcome {
    pub(super) fn new() -> Result<Outcome, String> {
        const DIGITS: u8 = 3;
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS);
        Ok(Outcome {
            answered: 0,
            misses: 0,
            refused: BTreeMap::new(),
            wrong: 0,
            unanswered: 0,
            faults: Vec::new(),
            is_interrupted: false,
            elapsed: Duration::ZERO,
            generator_cpu: Duration::ZERO,
            latency_ns: latency_ns.map_err(|error| error.to_string())?,
        })
    }

    pub(super) fn count(&mut self, verdict: Verdict) {
        self.answered += 1;
        match verdict {
            Verdict::Right => {}
            Verdict::Missing => self.misses += 1,
            Verdict::Refused(refusal) => *self.refused.entry(refusal).or_default() += 1,
            Verdict::Wrong(fault) => {
                self.wrong += 1;
                self.fault(fault);
            }
        }
    }

    pub(super) fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    pub(super) fn took(&mut self, latency: Duration, replies: u64) {
        let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.latency_ns.saturating_record_n(latency_ns, replies);
    }

    /// Errors that the server told.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Why this run may not be shown as a figure; `None` when every request was
    /// answered as it should be. Reads that find nothing are the caller's to judge.
    pub fn failure(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for (refusal, count) in &self.refused {
            reasons.push(format!("{count} × {} (outcome: {})", refusal.code, refusal.outcome));
        }
        if self.wrong > 0 {
            reasons.push(format!("{} wrong replies", self.wrong));
        }
        if self.unanswered > 0 {
            reasons.push(format!("{} requests without an answer (outcome: unknown)", self.unanswered));
        }
        reasons.extend(self.faults.iter().cloned());
        if self.is_interrupted {
            reasons.push("interrupted".into());
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Answered requests in a second.
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency below which this share of the replies came, in microseconds.
    pub fn latency_us(&self, share: f64) -> f64 {
        self.latency_ns.value_at_quantile(share) as f64 / 1_000.0
    }
}
