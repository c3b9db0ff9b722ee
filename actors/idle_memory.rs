//! Memory goes back to the system when a thread has come to rest.
//!
//! The allocator keeps what is freed for the next allocation, a heap for each
//! thread, and gives it back while it works. After a burst there is no work, and
//! a node would hold the burst's buffers until the next one.

use std::sync::Arc;
use std::time::Duration;

use crate::mailbox::Gauge;

/// How long a thread's actor must have heard nothing.
const REST: Duration = Duration::from_secs(1);
/// What a member hears in that time while nobody writes: its own clock's beats, its peers' signs of life.
pub const BEATS_MAX: u64 = 400;

/// Watches an actor from its own thread, for as long as that runs: at rest after
/// work, the thread's free memory is given back, once. It is at rest if it has heard
/// no more than `beats_max` messages.
pub async fn give_back_at_rest(gauge: Arc<Gauge>, beats_max: u64) {
    let mut seen = 0;
    let mut is_given_back = false;
    loop {
        tokio::time::sleep(REST).await;
        let processed = gauge.read().processed;
        let heard = processed - std::mem::replace(&mut seen, processed);
        if heard > beats_max {
            is_given_back = false;
        } else if !is_given_back {
            is_given_back = true;
            give_back();
        }
    }
}

/// Gives back what this thread and ended ones have freed.
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: it takes no pointer, and may be called at any time from any thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Drops something large on a thread of its own: whoever had it has to answer.
pub(crate) fn free_elsewhere<T: Send + 'static>(large: T) {
    let freed = std::thread::Builder::new().name("freeing".into()).spawn(move || drop(large));
    if let Err(error) = freed {
        tracing::debug!(%error, "freed in place");
    }
}
