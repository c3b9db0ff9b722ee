//! The node writes its own log, line by line, to its standard error as best it can.
//!
//! ```text
//!   whoever says something ─► queue, bounded by bytes ─► thread "logging" ─► standard error
//!                               │ it is full
//!                               └─► the line is dropped, and counted
//! ```
//!
//! Nothing else waits for whoever reads the log, or ends because of it: a pipe that nobody empties, a
//! terminal that was halted and a closed one hold up that thread alone. What ends the process gives it a
//! moment before, and no more.

use std::io::{ErrorKind, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use datastore::limits::LOGGING_QUEUE_BYTES_MAX;
use tracing_subscriber::fmt::MakeWriter;

use crate::flags::LogFormat;

/// Says which of the node's messages are written.
const FILTER_VARIABLE: &str = "RUST_LOG";
/// Lines that wait are written together, up to so many bytes.
const WRITE_BYTES: usize = 64 * 1024;
/// Bytes that a line in the queue occupies beside its text.
const LINE_OVERHEAD_BYTES: usize = 64;
/// For so long the end of the process waits for the lines before it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// A standard error that doesn't block and has no room is tried again after so long.
const RETRY_AFTER: Duration = Duration::from_millis(20);

enum Order {
    Line(Vec<u8>),
    /// All lines before it are written, or given up, when this is dropped.
    Flush(#[expect(dead_code, reason = "dropping it is the answer")] Sender<()>),
}

/// The lines on their way.
struct Queue {
    orders: Sender<Order>,
    taken: Receiver<Order>,
    bytes: AtomicUsize,
    lines_dropped: AtomicU64,
}

static QUEUE: LazyLock<Queue> = LazyLock::new(Queue::new);

impl Queue {
    fn new() -> Queue {
        let (orders, taken) = unbounded();
        Queue { orders, taken, bytes: AtomicUsize::new(0), lines_dropped: AtomicU64::new(0) }
    }

    fn say(&self, line: &[u8]) {
        let bytes = line.len() + LINE_OVERHEAD_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > LOGGING_QUEUE_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.lines_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Both ends are here: it can't be closed.
        let _ = self.orders.send(Order::Line(line.to_vec()));
    }

    fn flush(&self, timeout: Duration) {
        let (done, is_done) = bounded(0);
        let _ = self.orders.send(Order::Flush(done));
        // An error is the answer: the other end was dropped, or the time is over.
        let _ = is_done.recv_timeout(timeout);
    }

    /// Writes lines for ever.
    fn write_to(&self, output: &mut dyn Write) {
        let mut dropped_before = 0;
        while let Ok(order) = self.taken.recv() {
            let mut bytes = Vec::new();
            let mut lines = 0;
            let mut next = Some(order);
            while let Some(Order::Line(line)) = next {
                self.bytes.fetch_sub(line.len() + LINE_OVERHEAD_BYTES, Ordering::Relaxed);
                bytes.extend_from_slice(&line);
                lines += 1;
                next = if bytes.len() < WRITE_BYTES { self.taken.try_recv().ok() } else { None };
            }
            let is_out = write_all(output, &bytes);
            if !is_out {
                self.lines_dropped.fetch_add(lines, Ordering::Relaxed);
            }
            drop(next);
            let dropped = self.lines_dropped.load(Ordering::Relaxed);
            // Behind what went out alone: where nothing does, saying so would never end.
            if is_out && lines > 0 && dropped > dropped_before && self.taken.is_empty() {
                tracing::warn!(
                    lines = dropped - dropped_before,
                    "lines of the log were dropped: nobody took them"
                );
                dropped_before = self.lines_dropped.load(Ordering::Relaxed);
            }
        }
    }
}

/// Whether all of it went out.
fn write_all(output: &mut dyn Write, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return false,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_AFTER),
            Err(_) => return false,
        }
    }
    true
}

/// Lines that were dropped since the process began.
pub fn lines_dropped() -> u64 {
    QUEUE.lines_dropped.load(Ordering::Relaxed)
}

/// Bytes of the lines that wait in the queue.
pub fn queued_bytes() -> usize {
    QUEUE.bytes.load(Ordering::Relaxed)
}

/// Gives what was said a moment to get out.
pub fn flush() {
    QUEUE.flush(FLUSH_TIMEOUT);
}

/// Ends the process, behind what was said.
pub fn exit(code: i32) -> ! {
    flush();
    std::process::exit(code)
}

/// Ends the process at once, behind what was said.
pub fn abort() -> ! {
    flush();
    std::process::abort()
}

/// Says a line that is no event of the log.
pub fn say(line: &str) {
    QUEUE.say(format!("{line}\n").as_bytes());
}

/// Puts on the terminal what is no line.
pub(crate) fn draw(text: &str) {
    QUEUE.say(text.as_bytes());
}

/// Takes each line of the log.
#[derive(Clone, Copy, Debug)]
pub struct ToQueue;

impl Write for ToQueue {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        QUEUE.say(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for ToQueue {
    type Writer = ToQueue;

    fn make_writer(&self) -> ToQueue {
        ToQueue
    }
}

/// From now on what the process says gets to its standard error.
pub fn begin(format: LogFormat) {
    use std::io::IsTerminal;
    let asked = std::env::var(FILTER_VARIABLE).ok().filter(|asked| !asked.trim().is_empty());
    let (filter, wrong) = match asked.map(tracing_subscriber::EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (tracing_subscriber::EnvFilter::new("info"), Some(error)),
        None => (tracing_subscriber::EnvFilter::new("info"), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(ToQueue)
        // It would say on the standard error itself what can't be said.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let begun = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Without that thread lines are dropped when the queue is full, as without a reader.
    let thread = std::thread::Builder::new().name("logging".into());
    let _ = thread.spawn(|| QUEUE.write_to(&mut std::io::stderr()));
    if let Err(error) = begun {
        say(&format!("error: no log: {error}"));
    }
    if let Some(error) = wrong {
        tracing::warn!("{FILTER_VARIABLE} is passed over, and what is `info` or more is said: {error}");
    }
}

/// A panic in the log or in a shard leaves memory and disk apart: the process
/// ends, and recovery, which trusts only the log, begins anew. The actor
/// runtime would catch the panic and go on with one actor fewer.
pub fn abort_on_any_panic() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        say(&format!("thread '{name}' {info}\n{}", std::backtrace::Backtrace::capture()));
        abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says that it was asked for, and takes what it is given when it may.
    struct Halted {
        asked: mpsc::Sender<()>,
        may: mpsc::Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Halted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.asked.send(()).unwrap();
            self.may.recv().map_err(|_| std::io::Error::from(ErrorKind::BrokenPipe))?;
            self.taken.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_counted_and_nobody_waits() {
        let queue: &'static Queue = Box::leak(Box::new(Queue::new()));
        let (asked, is_asked) = mpsc::channel();
        let (let_go, may) = mpsc::channel();
        let (taken, is_taken) = mpsc::channel();
        std::thread::spawn(move || queue.write_to(&mut Halted { asked, may, taken }));
        queue.say(b"first\n");
        is_asked.recv().unwrap();
        let line = vec![b'x'; 1_000];
        let count = 2 * LOGGING_QUEUE_BYTES_MAX / line.len();
        (0..count).for_each(|_| queue.say(&line));
        let dropped = queue.lines_dropped.load(Ordering::Relaxed);
        assert!(dropped as usize > count / 2 - count / 10, "{dropped} of {count}");
        assert!(queue.bytes.load(Ordering::Relaxed) <= LOGGING_QUEUE_BYTES_MAX);
        queue.flush(Duration::from_millis(1));
        let_go.send(()).unwrap();
        assert_eq!(is_taken.recv().unwrap(), b"first\n");
        is_asked.recv().unwrap();
        drop(let_go);
        queue.flush(Duration::from_secs(60));
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0, "it goes on though the reader is gone");
        assert!(
            queue.lines_dropped.load(Ordering::Relaxed) > dropped,
            "what can't be written is counted, too"
        );
    }
}
