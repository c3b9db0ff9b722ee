//! When the log may ask for a snapshot: one at a time, and not at once again after one that failed.

use std::time::{Duration, Instant};

/// After a snapshot that failed, the log waits so long before it asks for another.
const RETRY: Duration = Duration::from_secs(30);

/// What is known of the snapshots that the log has asked for.
#[derive(Default)]
pub(crate) struct SnapshotPace {
    under_way: bool,
    /// Set when one failed.
    not_before: Option<Instant>,
}

impl SnapshotPace {
    /// Whether another one may begin now.
    pub(crate) fn is_free(&self) -> bool {
        !self.under_way && self.not_before.is_none_or(|until| Instant::now() >= until)
    }

    /// One begins, whoever has asked for it.
    pub(crate) fn begins(&mut self) {
        self.under_way = true;
    }

    /// None is under way any more; whether there is a new one.
    pub(crate) fn ended(&mut self, made: bool) {
        *self = SnapshotPace { under_way: false, not_before: (!made).then(|| Instant::now() + RETRY) };
    }

    /// What the last one failed for may be no more.
    pub(crate) fn forget_failure(&mut self) {
        self.not_before = None;
    }
}
