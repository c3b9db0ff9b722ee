//! The room that all connections have for lines of which only a part has come.
//!
//! A line of up to `--max-line-bytes` is kept until its end has come, so that very many
//! connections could fill the memory with halves. They share a budget. When it is full,
//! a line that wants to grow waits for room, but for one of them, the *finisher*: it goes
//! on, so that some line always gets done and gives its room back. Nobody waits for ever:
//! a line that has found no room in time is refused, and so is a finisher that takes too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use datastore::limits;
use datastore::messaging::{Decoded, LineDecoder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a line waits before it looks for room again.
pub(crate) const ROOM_PAUSE: Duration = Duration::from_millis(10);
/// How long a half line may stay without growing, or wait for room, or be the finisher's.
pub(crate) const PATIENCE: Duration = Duration::from_millis(limits::LINE_PROGRESS_TIMEOUT_MS);
/// What a half line may occupy without taking from the budget: what one read brings.
const FREE_BYTES: usize = limits::SOCKET_READ_BYTES;

/// A line from this length on is decoded beside the thread that serves its connection, and others.
pub(crate) const LONG_LINE_BYTES: usize = 256 * 1024;

/// What half-read lines of all connections occupy.
pub struct HalfLines {
    bytes: AtomicUsize,
    /// Some connection is the finisher.
    has_finisher: AtomicBool,
    /// One long line is decoded at a time: more of them would take the processors from everybody else.
    decoding: Arc<Semaphore>,
}

impl Default for HalfLines {
    fn default() -> HalfLines {
        HalfLines {
            bytes: AtomicUsize::new(0),
            has_finisher: AtomicBool::new(false),
            decoding: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Whether a line may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It may.
    Grow,
    /// Not yet.
    Wait,
    /// It has waited, or has been the finisher's, for too long.
    Refused,
}

/// A decoder that is at work, and what it has decoded; nothing, if the node ends meanwhile.
pub(crate) type Decoding = Pin<Box<dyn Future<Output = Option<(LineDecoder, Option<Decoded>)>>>>;

/// One connection's half-read line.
pub(crate) struct HalfLine {
    all: Arc<HalfLines>,
    /// What it takes from the budget.
    bytes: usize,
    is_finisher: bool,
    /// When it is refused; set while it waits or is the finisher's.
    due: Option<Instant>,
}

impl HalfLine {
    /// There is none yet.
    pub(crate) fn new(all: Arc<HalfLines>) -> HalfLine {
        HalfLine { all, bytes: 0, is_finisher: false, due: None }
    }

    /// It occupies so much now; nothing: it is done, or gone.
    pub(crate) fn occupies(&mut self, bytes: usize) {
        let counted = bytes.saturating_sub(FREE_BYTES);
        let before = std::mem::replace(&mut self.bytes, counted);
        if counted >= before {
            self.all.bytes.fetch_add(counted - before, Ordering::Relaxed);
        } else {
            self.all.bytes.fetch_sub(before - counted, Ordering::Relaxed);
        }
        if counted < before || counted == 0 {
            // Another line has begun.
            self.settle();
        }
    }

    /// Whether it may grow now.
    pub(crate) fn room(&mut self) -> Room {
        let others = self.all.bytes.load(Ordering::Relaxed).saturating_sub(self.bytes);
        if self.bytes == 0 || others <= limits::HALF_LINES_BYTES_MAX {
            self.settle();
            return Room::Grow;
        }
        if !self.is_finisher && !self.all.has_finisher.swap(true, Ordering::Relaxed) {
            (self.is_finisher, self.due) = (true, None);
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + PATIENCE);
        match self.is_finisher {
            _ if due <= Instant::now() => Room::Refused,
            true => Room::Grow,
            false => Room::Wait,
        }
    }

    /// Decodes a long line on another thread, when its turn has come, with the read that brought its `end`; without
    /// one where the client ended it by closing its half.
    pub(crate) fn decode_long(&self, mut decoder: LineDecoder, end: Option<Vec<u8>>) -> Decoding {
        let turns = self.all.decoding.clone();
        Box::pin(async move {
            // Nobody closes it. The turn is over when the line is decoded, also if its connection is gone by then.
            let turn = turns.acquire_owned().await.ok();
            let decoded = tokio::task::spawn_blocking(move || {
                let decoded = match end {
                    Some(end) => decoder.decode(&end),
                    None => decoder.finish(),
                };
                drop(turn);
                (decoder, decoded)
            });
            decoded.await.ok()
        })
    }

    fn settle(&mut self) {
        self.due = None;
        if std::mem::take(&mut self.is_finisher) {
            self.all.has_finisher.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for HalfLine {
    fn drop(&mut self) {
        self.occupies(0);
    }
}

/// Whether nothing more can come of a socket that isn't read for now: the connection broke, or the client
/// has closed its half and all that it had sent was read. The next read says which.
pub(crate) fn has_ended(socket: &TcpStream) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let broke = PollFlags::ERR | PollFlags::HUP;
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) if polled[0].revents().intersects(broke) => true,
        Ok(_) if polled[0].revents().contains(PollFlags::RDHUP) => {
            rustix::io::ioctl_fionread(socket).is_ok_and(|unread| unread == 0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn full(lines: usize) -> (Arc<HalfLines>, Vec<HalfLine>) {
        let all = Arc::new(HalfLines::default());
        let mut halves: Vec<HalfLine> = (0..lines).map(|_| HalfLine::new(all.clone())).collect();
        halves.iter_mut().for_each(|half| half.occupies(MIB + FREE_BYTES));
        (all, halves)
    }

    #[test]
    fn one_line_always_goes_on_and_the_next_one_when_it_is_done() {
        let (_, mut halves) = full(300);
        assert_eq!(halves[7].room(), Room::Grow);
        assert_eq!([8, 9].map(|other: usize| halves[other].room()), [Room::Wait; 2]);
        halves[7].occupies(2 * MIB);
        assert_eq!((halves[7].room(), halves[8].room()), (Room::Grow, Room::Wait));
        halves[7].occupies(0);
        assert_eq!(
            (halves[8].room(), halves[7].room()),
            (Room::Grow, Room::Grow),
            "a short line always fits"
        );
        assert_eq!(halves[9].room(), Room::Wait);
        drop(halves.remove(8));
        assert_eq!(halves[8].room(), Room::Grow, "it went on when the finisher's client had gone");
    }

    #[test]
    fn there_is_room_again_when_lines_are_done() {
        let (all, mut halves) = full(300);
        assert_eq!([0, 1].map(|number: usize| halves[number].room()), [Room::Grow, Room::Wait]);
        halves.truncate(200);
        assert!((1..200).all(|number| halves[number].room() == Room::Grow));
        drop(halves);
        assert_eq!((all.bytes.load(Ordering::Relaxed), all.has_finisher.load(Ordering::Relaxed)), (0, false));
    }

    #[test]
    fn a_line_that_has_waited_for_too_long_is_refused_and_so_is_a_slow_finisher() {
        let (_, mut halves) = full(300);
        halves[0].room();
        halves[1].room();
        for half in &mut halves[..2] {
            half.due = Some(Instant::now());
        }
        assert_eq!([0, 1].map(|number: usize| halves[number].room()), [Room::Refused; 2]);
        halves[0].occupies(0);
        assert_eq!(halves[2].room(), Room::Grow);
    }
}
