//! The ledger that all writers of a run keep together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Number, Told};
use super::names::Names;

/// Writes that a ledger holds before it wants to be settled: what keeps memory
/// flat and the explanation of a state cheap, however rare the kills are.
const WRITES_MAX: usize = 50_000;

/// A ledger, and a bell that rings at every acknowledged write.
pub struct Book {
    /// What the run's keys and values are called.
    pub names: Names,
    page: Mutex<Page>,
    bell: Condvar,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct Page {
    ledger: Ledger,
    /// Acknowledged writes since the book was opened.
    acknowledged: u64,
    /// When the last one was acknowledged.
    acknowledged_at: Option<Instant>,
    /// The longest time between two of them since that was asked for last.
    gap_max: Duration,
}

impl Book {
    /// An empty one.
    pub fn new(names: Names) -> Book {
        let (page, bell, is_closed) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Book { names, page, bell, is_closed }
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // Each use leaves the page whole, so a panic elsewhere has not harmed it.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the ledger while nobody else can.
    pub fn with<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        act(&mut self.page().ledger)
    }

    /// Asks the writers to end behind the replies that they are waiting for.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Before writers start.
    pub(super) fn open(&self) {
        let mut page = self.page();
        (page.acknowledged, page.acknowledged_at) = (0, None);
        drop(page);
        self.is_closed.store(false, Ordering::Relaxed);
    }

    /// Whether no more writes may be begun.
    pub fn is_finished(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) || self.page().ledger.writes_len() >= WRITES_MAX
    }

    /// Whether it is time to settle, though there is room for what a fault may still bring.
    pub fn is_half_full(&self) -> bool {
        self.page().ledger.writes_len() >= WRITES_MAX / 2
    }

    /// Acknowledged writes since the writers started.
    pub fn acknowledged(&self) -> u64 {
        self.page().acknowledged
    }

    /// The longest time between two acknowledged writes, the second of which came since this was
    /// asked for last.
    pub fn take_gap(&self) -> Duration {
        std::mem::take(&mut self.page().gap_max)
    }

    pub(super) fn note(&self, number: Number, told: Told, version: Option<&str>) {
        let mut page = self.page();
        page.ledger.answered(number, told, version);
        if told == Told::Acknowledged {
            page.acknowledged += 1;
            let now = Instant::now();
            if let Some(last) = page.acknowledged_at.replace(now) {
                page.gap_max = page.gap_max.max(now - last);
            }
            self.bell.notify_all();
        }
    }

    /// Waits until so many writes were acknowledged since the writers started;
    /// false when that took longer than `patience`.
    pub fn wait_for(&self, acknowledged: u64, patience: Duration) -> bool {
        let is_waiting = |page: &mut Page| page.acknowledged < acknowledged;
        let waited = self.bell.wait_timeout_while(self.page(), patience, is_waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}
