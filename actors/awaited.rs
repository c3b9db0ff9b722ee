//! Whether anyone still waits for a search: its deadline, and whether its
//! connection is there. What nobody waits for is not done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Who asks: shared by a connection and all that it has asked for.
#[derive(Default)]
pub(crate) struct Asker {
    gone: AtomicBool,
}

impl Asker {
    /// The connection has ended: nobody takes its answers.
    pub(crate) fn leaves(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// Until when the answer to one request is waited for, and by whom.
#[derive(Clone)]
pub(crate) struct Awaited {
    asker: Arc<Asker>,
    deadline: Instant,
}

impl Awaited {
    /// By this asker, from `arrived` on for `timeout_ms`.
    pub(crate) fn new(asker: &Arc<Asker>, arrived: Instant, timeout_ms: u64) -> Awaited {
        Awaited { asker: asker.clone(), deadline: arrived + Duration::from_millis(timeout_ms) }
    }

    /// A number that no other asker has as long as this is kept.
    pub(crate) fn asker(&self) -> usize {
        Arc::as_ptr(&self.asker).addr()
    }

    /// Nobody takes the answer.
    pub(crate) fn is_gone(&self) -> bool {
        self.asker.gone.load(Ordering::Relaxed)
    }

    /// Someone does, and in time.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.is_gone() && Instant::now() < self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_or_whose_asker_is_gone_is_awaited_no_more() {
        let (asker, other) = (Arc::new(Asker::default()), Arc::new(Asker::default()));
        let now = Instant::now();
        let [first, second] = [&asker, &other].map(|asker| Awaited::new(asker, now, 60_000));
        let late = Awaited::new(&other, now, 0);
        assert!(first.is_awaited() && second.is_awaited() && !late.is_awaited());
        asker.leaves();
        assert!(first.is_gone() && !first.is_awaited());
        assert!(second.is_awaited() && !late.is_gone());
        assert!(first.asker() != second.asker() && second.asker() == late.asker());
    }
}
