//! How far recovery is: a bar on a terminal, a line in the log elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Elsewhere than on a terminal, a line this often is enough.
const LINE_EVERY: Duration = Duration::from_secs(2);

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
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
