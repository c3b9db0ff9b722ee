//! Counted mailboxes: what `stats` shows of an actor is measured here.
//!
//! A [`Mailbox`] is an actor's address with its [`Gauge`]. Every message takes
//! a ticket when it is sent and gives it back when its handler begins, so that
//! `enqueued`, `processed`, the depth and the age of the oldest message are
//! counts of real messages, never estimates.
//!
//! The actor runtime's own bound is passed over by its sends, so the bound is
//! kept here: what clients bring is only sent to a mailbox that has room
//! ([`Mailbox::has_room`], else the client is told `overloaded`); what the actors
//! owe each other (commits, replies) always passes, since its number follows
//! from what was let in. The bytes behind all messages are bounded by `Node`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use actix::dev::channel::{AddressReceiver, channel};
use actix::{Actor, Addr, Context, Handler, Message};
use hdrhistogram::Histogram;
use slab::Slab;

/// A message with its ticket. Dropped unhandled (its actor was gone), it counts
/// as rejected.
pub struct Counted<M> {
    message: Option<M>,
    ticket: usize,
    gauge: Arc<Gauge>,
}

impl<M> Drop for Counted<M> {
    fn drop(&mut self) {
        if self.message.is_some() {
            self.gauge.reject(self.ticket);
        }
    }
}

impl<M> Message for Counted<M> {
    type Result = ();
}

/// The mailbox figures of one actor (or of one kind, summed).
pub struct Gauge {
    /// As in `stats`: `shard-0`, `wal-writer`, …
    pub name: String,
    /// The actor's kind: `Shard`, `WalWriter`, …
    pub kind: &'static str,
    /// With this many messages waiting, what clients bring is refused.
    pub capacity: u64,
    counts: Mutex<Counts>,
}

struct Counts {
    enqueued: u64,
    processed: u64,
    rejected: u64,
    depth_max: u64,
    /// When each message that is still waiting was sent.
    waiting: Slab<Instant>,
    wait_us: Histogram<u64>,
    handle_us: Histogram<u64>,
}

impl Counts {
    fn depth(&self) -> u64 {
        self.enqueued - self.processed
    }
}

/// Locks figures; they stay meaningful whatever happened to the thread that held them.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Percentiles of a duration, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Percentiles {
    /// Half were at most this.
    pub p50: u64,
    /// 99 of 100 were at most this.
    pub p99: u64,
    /// None was more than this.
    pub max: u64,
}

/// A histogram of durations or sizes, 2 significant digits, any length.
pub fn histogram() -> Histogram<u64> {
    // Two digits keep a histogram at a few KiB; `new` fails only beyond five.
    Histogram::new(2).unwrap_or_else(|_| unreachable!("two significant digits are allowed"))
}

/// Records a value of any size. A histogram's own `saturating_record` would not
/// let it grow, and take a large value for a small one.
pub fn record(histogram: &mut Histogram<u64>, value: u64) {
    // Fails only where a histogram may not grow, and these may.
    let _ = histogram.record(value);
}

/// What `stats` shows of a histogram.
pub fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    Percentiles {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        max: histogram.max(),
    }
}

/// A gauge at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Messages that the actor got or is going to get: those rejected are not among them.
    pub enqueued: u64,
    /// Messages whose handler has ended.
    pub processed: u64,
    /// Messages that came too late, since their actor was gone, or found no room.
    pub rejected: u64,
    /// Messages sent and not yet processed.
    pub depth: u64,
    /// The most there ever were.
    pub depth_max: u64,
    /// How long the oldest waiting message has waited.
    pub oldest_age_us: u64,
    /// Time in the mailbox.
    pub wait_us: Percentiles,
    /// Time in the handler.
    pub handle_us: Percentiles,
}

impl Gauge {
    /// A gauge at zero.
    pub fn new(name: impl Into<String>, kind: &'static str, capacity: u64) -> Arc<Gauge> {
        let counts = Counts {
            enqueued: 0,
            processed: 0,
            rejected: 0,
            depth_max: 0,
            waiting: Slab::new(),
            wait_us: histogram(),
            handle_us: histogram(),
        };
        Arc::new(Gauge { name: name.into(), kind, capacity, counts: Mutex::new(counts) })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    fn enqueue(&self) -> usize {
        let now = Instant::now();
        let mut counts = self.counts();
        counts.enqueued += 1;
        counts.depth_max = counts.depth_max.max(counts.depth());
        counts.waiting.insert(now)
    }

    fn reject(&self, ticket: usize) {
        let mut counts = self.counts();
        counts.enqueued -= 1;
        counts.rejected += 1;
        counts.waiting.remove(ticket);
    }

    /// A refusal that never became a message.
    fn count_rejected(&self) {
        self.counts().rejected += 1;
    }

    /// The figures now.
    pub fn read(&self) -> Reading {
        let now = Instant::now();
        let counts = self.counts();
        let oldest = counts.waiting.iter().map(|(_, sent)| *sent).min();
        Reading {
            enqueued: counts.enqueued,
            processed: counts.processed,
            rejected: counts.rejected,
            depth: counts.depth(),
            depth_max: counts.depth_max,
            oldest_age_us: oldest.map_or(0, |sent| now.duration_since(sent).as_micros() as u64),
            wait_us: percentiles(&counts.wait_us),
            handle_us: percentiles(&counts.handle_us),
        }
    }
}

impl<M> Counted<M> {
    /// The message, which goes on waiting.
    pub fn message(&self) -> Option<&M> {
        self.message.as_ref()
    }

    /// The message's handler begins; it ends when the guard drops.
    pub fn begin(mut self) -> Option<(M, Handling)> {
        let message = self.message.take()?;
        let began = Instant::now();
        let mut counts = self.gauge.counts();
        let sent = counts.waiting.remove(self.ticket);
        record(&mut counts.wait_us, began.duration_since(sent).as_micros() as u64);
        drop(counts);
        Some((message, Handling { gauge: self.gauge.clone(), began }))
    }
}

/// A handler at work.
pub struct Handling {
    gauge: Arc<Gauge>,
    began: Instant,
}

impl Drop for Handling {
    fn drop(&mut self) {
        let took = self.began.elapsed().as_micros() as u64;
        let mut counts = self.gauge.counts();
        counts.processed += 1;
        record(&mut counts.handle_us, took);
    }
}

/// Where to send an actor its messages.
pub struct Mailbox<A: Actor> {
    address: Addr<A>,
    gauge: Arc<Gauge>,
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Mailbox { address: self.address.clone(), gauge: self.gauge.clone() }
    }
}

/// The receiving end of a mailbox whose actor is not running yet.
pub struct Inbox<A: Actor> {
    receiver: AddressReceiver<A>,
    /// The actor counts its messages with this.
    pub gauge: Arc<Gauge>,
}

/// A mailbox made before its actor, so that actors that know each other can
/// all be given every address when they are made.
pub fn mailbox<A: Actor<Context = Context<A>>>(gauge: Arc<Gauge>) -> (Mailbox<A>, Inbox<A>) {
    let (sender, receiver) = channel(16);
    (Mailbox { address: Addr::new(sender), gauge: gauge.clone() }, Inbox { receiver, gauge })
}

impl<A: Actor<Context = Context<A>>> Inbox<A> {
    /// Runs the actor on the arbiter of this thread.
    pub fn run(self, actor: A) {
        Context::with_receiver(self.receiver).run(actor);
    }
}

impl<A: Actor> Mailbox<A> {
    /// Sends a message; it is dropped, and counted as rejected, when the actor is gone.
    pub fn send<M>(&self, message: M)
    where
        M: Send + 'static,
        A: Handler<Counted<M>>,
        A::Context: actix::dev::ToEnvelope<A, Counted<M>>,
    {
        let ticket = self.gauge.enqueue();
        self.address.do_send(Counted { message: Some(message), ticket, gauge: self.gauge.clone() });
    }

    /// Whether something that a client brings may still be sent; a refusal is counted.
    pub fn has_room(&self) -> bool {
        let room = self.gauge.counts().depth() < self.gauge.capacity;
        if !room {
            self.gauge.count_rejected();
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_shows_what_it_was_given_within_two_digits() {
        for value in [0, 1, 255, 256, 300, 10_000, 60_000_000, u64::from(u32::MAX) * 1_000] {
            let mut histogram = histogram();
            record(&mut histogram, value);
            let Percentiles { p50, p99, max } = percentiles(&histogram);
            for shown in [p50, p99, max] {
                assert!(shown.abs_diff(value) <= value / 100, "{value} is shown as {shown}");
            }
        }
    }
}
