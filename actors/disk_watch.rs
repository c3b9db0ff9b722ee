//! How long the disk thread has been at what it is doing: a disk that hangs answers nothing, and
//! whoever waits for it has to be told by someone else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use datastore::persistence::SyncTimes;

use crate::mailbox::lock;

/// Shared by the disk thread and those that look at it.
pub struct DiskWatch {
    started: Instant,
    /// When the order began that the disk thread carries out, in microseconds since `started` and at least 1;
    /// 0: it waits for one.
    began_us: AtomicU64,
    times: Mutex<SyncTimes>,
}

impl Default for DiskWatch {
    fn default() -> DiskWatch {
        DiskWatch { started: Instant::now(), began_us: AtomicU64::new(0), times: Mutex::default() }
    }
}

impl DiskWatch {
    /// The disk thread begins to carry out an order.
    pub(crate) fn begins(&self) {
        let since_start = self.started.elapsed().as_micros() as u64;
        self.began_us.store(since_start.max(1), Ordering::Relaxed);
    }

    /// The disk thread waits for its next order.
    pub(crate) fn ends(&self) {
        self.began_us.store(0, Ordering::Relaxed);
    }

    /// A sync took so long.
    pub(crate) fn record(&self, took: Duration) {
        lock(&self.times).record(took);
    }

    /// The age of the oldest write that isn't synced; zero for none.
    pub(crate) fn oldest(&self) -> Duration {
        match self.began_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began_us => self.started.elapsed().saturating_sub(Duration::from_micros(began_us)),
        }
    }

    /// Whether that is more than this disk's syncs before allow for.
    pub(crate) fn is_stalled(&self, oldest: Duration) -> bool {
        // Nothing stalls in less, so that the rule needn't be worked out each time.
        oldest >= Duration::from_secs(1) && oldest >= lock(&self.times).stalled_after()
    }
}
