//! When a connection has been idle for so long that it may be closed (`--idle-timeout-ms`).
//!
//! Idle is: no request is under way, no reply waits to be taken, no line is half read, and
//! nothing was read or written. Off unless asked for: a client that keeps a connection
//! for later does nothing wrong.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Watches one connection.
pub struct IdleWatch {
    timeout: Option<Duration>,
    /// When something was read last.
    read: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// When the last of a connection's work was done.
pub struct QuietSince(Cell<Instant>);

impl Default for QuietSince {
    fn default() -> Self {
        QuietSince(Cell::new(Instant::now()))
    }
}

impl QuietSince {
    /// It was now.
    pub fn now(&self) {
        self.0.set(Instant::now());
    }
}

impl IdleWatch {
    /// Watches from now on; never finds anything without a time-out.
    pub fn new(timeout_ms: Option<u64>) -> IdleWatch {
        IdleWatch { timeout: timeout_ms.map(Duration::from_millis), read: Instant::now(), timer: None }
    }

    /// Something was read.
    pub fn read(&mut self) {
        if self.timeout.is_some() {
            self.read = Instant::now();
        }
    }

    /// Whether the connection has been idle for too long; else this wakes when that may be.
    /// `quiet` says since when it has nothing under way, and `None` that it has.
    pub fn is_over(&mut self, quiet: Option<&QuietSince>, context: &mut Context<'_>) -> bool {
        let Some(timeout) = self.timeout else { return false };
        // What is under way wakes the connection when it is done.
        let Some(quiet) = quiet else { return false };
        let due = due(self.read, quiet.0.get(), timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(context).is_ready()
    }
}

fn due(read: Instant, quiet: Instant, timeout: Duration) -> Instant {
    read.max(quiet) + timeout
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn the_later_of_reading_and_answering_counts() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(due(begun, begun + second, second), begun + second * 2);
        assert_eq!(due(begun + second, begun, second), begun + second * 2);
    }

    #[test]
    fn what_has_something_under_way_or_no_time_out_is_never_idle() {
        actix_rt::System::new().block_on(async {
            let mut context = Context::from_waker(Waker::noop());
            let long_ago = QuietSince::default();
            let mut watch = IdleWatch::new(Some(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!watch.is_over(None, &mut context));
            assert!(!IdleWatch::new(None).is_over(Some(&long_ago), &mut context));
            assert!(watch.is_over(Some(&long_ago), &mut context));
            let mut watch = IdleWatch::new(Some(3_600_000));
            assert!(!watch.is_over(Some(&long_ago), &mut context), "its time has just begun");
        });
    }
}
