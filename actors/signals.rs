//! What the system's signals do to the node.
//!
//! | signal | it |
//! |---|---|
//! | SIGTERM, SIGINT, SIGHUP, SIGQUIT | stops in good order; SIGHUP and SIGQUIT do nothing where whoever started it has them ignored (`nohup`) |
//! | SIGUSR1, SIGUSR2 | does nothing but say so: it has nothing that a signal could reload, turn or print |
//! | SIGPIPE, SIGXFSZ | does nothing: the call that met a closed pipe or the limit of a file's size fails |
//!
//! All others do what the system has them do.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A file may not grow beyond `ulimit -f`. By itself it would end the process; caught, it
/// leaves the write to fail, which is a full disk's case.
#[cfg(target_os = "linux")]
const FILE_SIZE_EXCEEDED: Option<i32> = Some(25);
#[cfg(not(target_os = "linux"))]
const FILE_SIZE_EXCEEDED: Option<i32> = None;

/// The signals that are listened to.
pub struct Signals {
    stopping: Vec<(&'static str, Signal)>,
    passed_over: Vec<(&'static str, Signal)>,
}

impl Signals {
    /// Listens from here on, within the runtime.
    pub fn listen() -> io::Result<Signals> {
        let ignored = ignored_by_starter();
        let stopping = [
            ("SIGTERM", SignalKind::terminate()),
            ("an interrupt", SignalKind::interrupt()),
            ("SIGHUP", SignalKind::hangup()),
            ("SIGQUIT", SignalKind::quit()),
        ];
        // A job in the background has its interrupts ignored by the shell, and stops all the same.
        let minds = |kind: SignalKind| {
            let may_be_ignored = kind == SignalKind::hangup() || kind == SignalKind::quit();
            !(may_be_ignored && is_within(ignored, kind))
        };
        let stopping = stopping
            .into_iter()
            .filter(|(_, kind)| minds(*kind))
            .map(|(name, kind)| Ok((name, signal(kind)?)))
            .collect::<io::Result<_>>()?;
        let mut passed_over = vec![
            ("SIGUSR1", signal(SignalKind::user_defined1())?),
            ("SIGUSR2", signal(SignalKind::user_defined2())?),
        ];
        if let Some(number) = FILE_SIZE_EXCEEDED {
            passed_over.push(("SIGXFSZ", signal(SignalKind::from_raw(number))?));
        }
        Ok(Signals { stopping, passed_over })
    }

    /// Comes back with the signal that ends the node.
    pub async fn stop(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            for (name, signal) in &mut self.passed_over {
                while signal.poll_recv(context).is_ready() {
                    tracing::info!("{name}: the node does nothing on it");
                }
            }
            let mut stopping = self.stopping.iter_mut();
            let came =
                stopping.find_map(|(name, signal)| signal.poll_recv(context).is_ready().then_some(*name));
            came.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

impl Signals {
    /// Whether one has come that ends the node and that nobody has waited for yet.
    pub fn has_come(&mut self) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        self.stopping.iter_mut().any(|(_, signal)| signal.poll_recv(&mut context).is_ready())
    }
}

/// The signals that were ignored when the process began, a bit each; none where the system doesn't say.
fn ignored_by_starter() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status)
}

fn ignored_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_within(mask: u64, kind: SignalKind) -> bool {
    let number = kind.as_raw_value();
    (1..=64).contains(&number) && mask >> (number - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_starter_ignores_is_read_from_the_process_status() {
        let ignored =
            ignored_in("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n");
        assert!(is_within(ignored, SignalKind::hangup()));
        assert!(!is_within(ignored, SignalKind::quit()) && !is_within(ignored, SignalKind::terminate()));
        assert_eq!((ignored_in(""), ignored_in("SigIgn: what")), (0, 0));
    }
}
