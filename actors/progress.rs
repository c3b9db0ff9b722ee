//! How far recovery is: a bar on a terminal, a line in the log elsewhere.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::logging;
use crate::mailbox::lock;

/// Elsewhere than on a terminal, a line this often is enough.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// On a terminal.
const DRAWS_PER_S: u8 = 10;

/// How much of the directory is read, for clients that ask meanwhile. A process reads one.
static DIRECTORY: DirectoryRead = DirectoryRead::new();

/// Bytes of the data directory.
struct DirectoryRead {
    /// What there is to be read, as far as known; 0 before.
    total: AtomicU64,
    /// In the parts that are done.
    done: AtomicU64,
    /// In the part at hand.
    current: AtomicU64,
}

impl DirectoryRead {
    const fn new() -> DirectoryRead {
        DirectoryRead { total: AtomicU64::new(0), done: AtomicU64::new(0), current: AtomicU64::new(0) }
    }

    /// From 0 to 1.
    fn part(&self) -> f64 {
        let total = self.total.load(Ordering::Relaxed);
        let read = self.done.load(Ordering::Relaxed) + self.current.load(Ordering::Relaxed);
        if total == 0 { 0.0 } else { (read as f64 / total as f64).min(1.0) }
    }

    fn part_is_done(&self) {
        self.done.fetch_add(self.current.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// There are so many bytes to be read.
pub(crate) fn directory_has(bytes: u64) {
    DIRECTORY.total.store(bytes, Ordering::Relaxed);
}

/// The part of the data directory that is read, from 0 to 1.
pub(crate) fn directory_read() -> f64 {
    // Three digits: it is for people, and for a client that waits.
    (DIRECTORY.part() * 1000.0).floor() / 1000.0
}

/// Something long under way.
pub(crate) struct Progress {
    what: &'static str,
    bytes_total: u64,
    bar: Option<ProgressBar>,
    said: Cell<Instant>,
}

impl Progress {
    /// Begins; without a total (0) the bar only counts.
    pub(crate) fn new(what: &'static str, bytes_total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| bar(what, bytes_total));
        Progress { what, bytes_total, bar, said: Cell::new(Instant::now()) }
    }

    /// So far.
    pub(crate) fn at(&self, bytes: u64) {
        DIRECTORY.current.store(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        } else if self.said.get().elapsed() >= LINE_EVERY {
            self.said.set(Instant::now());
            tracing::info!(bytes, bytes_total = self.bytes_total, "{}", self.what);
        }
    }
}

fn bar(what: &'static str, bytes_total: u64) -> ProgressBar {
    let (bar, template) = if bytes_total > 0 {
        (ProgressBar::new(bytes_total), "{msg} {wide_bar} {bytes}/{total_bytes} {eta}")
    } else {
        (ProgressBar::new_spinner(), "{msg} {spinner} {bytes} {bytes_per_sec}")
    };
    bar.set_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(Terminal::default()), DRAWS_PER_S));
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}

/// A terminal as lines of the log get there: one that is halted holds up nobody.
#[derive(Debug, Default)]
struct Terminal {
    drawn: Mutex<String>,
}

impl Terminal {
    fn draw(&self, text: &str) -> io::Result<()> {
        lock(&self.drawn).push_str(text);
        Ok(())
    }

    /// Moves the cursor: `A` up, `B` down, `C` right, `D` left.
    fn move_cursor(&self, by: usize, to: char) -> io::Result<()> {
        if by == 0 { Ok(()) } else { self.draw(&format!("\x1b[{by}{to}")) }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| size.ws_col)
    }

    fn move_cursor_up(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'A')
    }

    fn move_cursor_down(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'B')
    }

    fn move_cursor_right(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'C')
    }

    fn move_cursor_left(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.draw(text)?;
        self.draw("\r\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.draw(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.draw("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        logging::draw(&std::mem::take(&mut *lock(&self.drawn)));
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        DIRECTORY.part_is_done();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_directory_add_up_and_never_beyond_the_whole() {
        let read = DirectoryRead::new();
        assert_eq!(read.part(), 0.0);
        read.total.store(100, Ordering::Relaxed);
        read.current.store(40, Ordering::Relaxed);
        assert_eq!(read.part(), 0.4);
        read.part_is_done();
        read.current.store(35, Ordering::Relaxed);
        assert_eq!(read.part(), 0.75);
        read.current.store(400, Ordering::Relaxed);
        assert_eq!(read.part(), 1.0);
    }
}
