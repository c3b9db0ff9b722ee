//! How fast writes are let in: no faster than they are indexed.
//!
//! A search that begins behind a write's `ok` finds the write, so it waits until its
//! shard's indexes have come so far. How long that takes is what stands here as the
//! shard's debt: the time that its IndexManager will need for all writes that are let in
//! and not yet indexed, estimated by what the last ones took. While it is
//! [`limits::INDEX_DEBT_MAX_MS`] or more, further writes wait at their connections, where
//! they make nobody else wait; deletes and reads are not asked.
//!
//! Connections take turns: first come, first served, each for a slice of the shard's time.
//! A turn ends when its [`Turn`] is dropped, whatever becomes of its connection, and the next
//! one has it.

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use datastore::limits;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A shard's writes wait while its debt is this or more, in microseconds.
const DEBT_MAX_US: u64 = limits::INDEX_DEBT_MAX_MS * 1_000;
/// While other connections wait, one connection's turn ends when its writes have taken so much of the shard's time.
const TURN_US: u64 = 20_000;
/// The index's time for a write of no bytes, in microseconds.
const WRITE_US: u64 = 1;
/// The index's time for a MiB of values, and for one of vectors, is taken to be this until writes were measured.
const VALUE_NS_PER_MIB: u64 = 100_000_000;
const VECTOR_NS_PER_MIB: u64 = 1_000_000;
/// A measurement raises that time no higher than this: one on a machine that stands still would stop writes for good.
const NS_PER_MIB_MAX: u64 = 10_000_000_000;
/// A measurement lowers that time no further than this: of nothing no later measurement could make more.
const NS_PER_MIB_MIN: u64 = 10_000;
/// A message to the index that took so long counts as much as all messages before it.
const TRUSTED_US: u64 = 20_000;

/// A write holds a permit from when it is let in until it is indexed or refused. The permit says what the write takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Bytes of memory.
    pub bytes: u32,
    /// Time of its shard's IndexManager, in microseconds.
    pub time_us: u32,
}

/// The permits of several writes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PermitTotal {
    /// Bytes of memory.
    pub bytes: u64,
    /// The part of `bytes` that `--max-memory` counts as on its way into memory ([`crate::memory_bound`]).
    pub admitted_bytes: u64,
    /// Time of the shard's IndexManager, in microseconds.
    pub time_us: u64,
}

impl AddAssign<Permit> for PermitTotal {
    fn add_assign(&mut self, permit: Permit) {
        self.bytes += u64::from(permit.bytes);
        self.time_us += u64::from(permit.time_us);
    }
}

impl AddAssign for PermitTotal {
    fn add_assign(&mut self, other: PermitTotal) {
        self.bytes += other.bytes;
        self.admitted_bytes += other.admitted_bytes;
        self.time_us += other.time_us;
    }
}

impl From<Permit> for PermitTotal {
    fn from(permit: Permit) -> PermitTotal {
        PermitTotal { bytes: permit.bytes.into(), admitted_bytes: 0, time_us: permit.time_us.into() }
    }
}

/// An amount of writes to be indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How many writes.
    pub writes: u64,
    /// Bytes of keys and values.
    pub value_bytes: u64,
    /// Bytes of vectors.
    pub vector_bytes: u64,
}

/// One shard's.
struct ShardAdmission {
    debt_us: AtomicU64,
    value_ns_per_mib: AtomicU64,
    vector_ns_per_mib: AtomicU64,
    /// Connections that wait for their turn, or have it.
    waiting: AtomicUsize,
    /// The connection whose turn it is holds the one permit of this; the others wait for it in their order.
    place: Arc<Semaphore>,
    /// It wakes the connection whose turn it is when the debt is below its bound again.
    room: Notify,
}

/// All shards'.
pub struct Admission {
    shards: Vec<ShardAdmission>,
    /// A MiB counts as this much of a shard's time at least, however fast it is indexed: so the bytes of all
    /// shards together are bounded, too.
    us_per_mib_min: u64,
    /// The number of shards whose debt is at its bound, plus the number of connections that wait. It is mostly 0, so
    /// that one look tells most writes that they may go.
    pressed: AtomicUsize,
}

impl Admission {
    /// Nothing is under way. Where nothing is indexed a write costs its shard's index nothing.
    pub fn new(shards: usize, is_indexed: bool) -> Admission {
        let known = |ns_per_mib: u64| AtomicU64::new(if is_indexed { ns_per_mib } else { 0 });
        let shard = || ShardAdmission {
            debt_us: AtomicU64::new(0),
            value_ns_per_mib: known(VALUE_NS_PER_MIB),
            vector_ns_per_mib: known(VECTOR_NS_PER_MIB),
            waiting: AtomicUsize::new(0),
            place: Arc::new(Semaphore::new(1)),
            room: Notify::new(),
        };
        let mib_max = (limits::NODE_IN_FLIGHT_BYTES_MAX / 2 / shards.max(1)) as u64 >> 20;
        Admission {
            shards: (0..shards).map(|_| shard()).collect(),
            us_per_mib_min: DEBT_MAX_US / mib_max.max(1),
            pressed: AtomicUsize::new(0),
        }
    }

    /// What this work will take of a shard's time, in microseconds; as bytes are bounded, too, at least their part.
    pub fn estimate_us(&self, shard: usize, work: Work) -> u64 {
        let by_bytes = ((work.value_bytes + work.vector_bytes) * self.us_per_mib_min) >> 20;
        self.work_us(shard, work).max(by_bytes)
    }

    /// What it will take the IndexManager.
    fn work_us(&self, shard: usize, work: Work) -> u64 {
        let shard = &self.shards[shard];
        work.writes * WRITE_US
            + bytes_us(work.value_bytes, &shard.value_ns_per_mib)
            + bytes_us(work.vector_bytes, &shard.vector_ns_per_mib)
    }

    /// This work took so long. What a byte costs changes towards that, the more the longer it was.
    pub fn learn(&self, shard: usize, work: Work, took: Duration) {
        let estimated_us = self.work_us(shard, work).max(1);
        let took_us = took.as_micros() as u64;
        let weight_us = took_us.max(estimated_us.min(TRUSTED_US));
        let shard = &self.shards[shard];
        for (rate, bytes) in
            [(&shard.value_ns_per_mib, work.value_bytes), (&shard.vector_ns_per_mib, work.vector_bytes)]
        {
            let before = u128::from(rate.load(Ordering::Relaxed));
            // Of what was two kinds' work each is held to have taken its estimated part.
            let share_us = bytes_us(bytes, rate).min(estimated_us);
            let measured = before * u128::from(took_us) / u128::from(estimated_us);
            let weight = u128::from(weight_us) * u128::from(share_us) / u128::from(estimated_us);
            let trusted = u128::from(TRUSTED_US);
            let after =
                (before * trusted + measured.min(u128::from(NS_PER_MIB_MAX)) * weight) / (trusted + weight);
            let after = u64::try_from(after).unwrap_or(NS_PER_MIB_MAX);
            rate.store(after.clamp(NS_PER_MIB_MIN, NS_PER_MIB_MAX), Ordering::Relaxed);
        }
    }

    /// So much is let in.
    pub fn take(&self, shard: usize, time_us: u64) {
        let before = self.shards[shard].debt_us.fetch_add(time_us, Ordering::Relaxed);
        if before < DEBT_MAX_US && before + time_us >= DEBT_MAX_US {
            self.pressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So much is indexed, or refused: whoever waits may go on.
    pub fn give_back(&self, shard: usize, time_us: u64) {
        let before = self.shards[shard].debt_us.fetch_sub(time_us, Ordering::SeqCst);
        if before >= DEBT_MAX_US && before - time_us < DEBT_MAX_US {
            self.pressed.fetch_sub(1, Ordering::Relaxed);
        }
        self.pass_on(shard);
    }

    /// Nobody waits and no shard is behind: a write needn't ask whether it may go.
    pub fn is_calm(&self) -> bool {
        self.pressed.load(Ordering::Relaxed) == 0
    }

    /// A write may go to this shard without waiting for a turn.
    pub fn is_open(&self, shard: usize) -> bool {
        self.shards[shard].waiting.load(Ordering::Relaxed) == 0 && self.has_room(shard)
    }

    /// The shard's debt allows another write.
    pub fn has_room(&self, shard: usize) -> bool {
        self.debt_us(shard) < DEBT_MAX_US
    }

    /// A shard is so far behind that what other nodes send should wait, too.
    pub fn is_far_behind(&self) -> bool {
        (0..self.shards.len()).any(|shard| self.debt_us(shard) > 2 * DEBT_MAX_US)
    }

    /// What its index needs for all that is let in, in microseconds.
    pub fn debt_us(&self, shard: usize) -> u64 {
        self.shards[shard].debt_us.load(Ordering::SeqCst)
    }

    fn pass_on(&self, shard: usize) {
        if self.shards[shard].waiting.load(Ordering::SeqCst) > 0 && self.has_room(shard) {
            self.shards[shard].room.notify_one();
        }
    }
}

/// What so many bytes take, in microseconds.
fn bytes_us(bytes: u64, ns_per_mib: &AtomicU64) -> u64 {
    let ns = (u128::from(bytes) * u128::from(ns_per_mib.load(Ordering::Relaxed))) >> 20;
    u64::try_from(ns / 1_000).unwrap_or(u64::MAX / 4)
}

/// A connection's turn at a shard, and its place in the queue before that.
pub struct Turn {
    admission: Arc<Admission>,
    shard: usize,
    /// Of the shard's time, what is left of the turn, in microseconds.
    pub left_us: u64,
    /// Let go, it is the next one's turn.
    place: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Waits until all who came before have had their turn and writes to this shard may go on.
    pub async fn wait(admission: Arc<Admission>, shard: usize) -> Turn {
        let mut turn = Turn { admission: admission.clone(), shard, left_us: TURN_US, place: None };
        let queue = &admission.shards[shard];
        admission.pressed.fetch_add(1, Ordering::Relaxed);
        queue.waiting.fetch_add(1, Ordering::SeqCst);
        // Nobody closes it.
        turn.place = queue.place.clone().acquire_owned().await.ok();
        loop {
            let room = queue.room.notified();
            tokio::pin!(room);
            // Whoever gives room back from here on rings; what was given before is seen.
            room.as_mut().enable();
            if admission.has_room(shard) {
                return turn;
            }
            room.await;
        }
    }

    /// Whether it is a turn at this shard that isn't over.
    pub fn lasts(&self, shard: usize) -> bool {
        self.shard == shard && self.left_us > 0 && self.admission.has_room(shard)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.admission.shards[self.shard].waiting.fetch_sub(1, Ordering::SeqCst);
        self.admission.pressed.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const TEXT: Work = Work { writes: 1, value_bytes: 1_000, vector_bytes: 0 };

    fn full(shards: usize) -> Arc<Admission> {
        let admission = Arc::new(Admission::new(shards, true));
        admission.take(0, DEBT_MAX_US);
        admission
    }

    /// Looks once whether a turn has come.
    fn look<F: Future<Output = Turn>>(turn: std::pin::Pin<&mut F>) -> Option<Turn> {
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn writes_wait_only_at_the_shard_that_is_behind() {
        let admission = full(2);
        assert!(!admission.is_calm());
        assert_eq!((admission.is_open(0), admission.is_open(1)), (false, true));
        admission.give_back(0, 1);
        assert!(admission.is_calm() && admission.is_open(0));
    }

    #[test]
    fn turns_come_in_the_order_in_which_they_were_asked_for() {
        let admission = full(1);
        let mut first = pin!(Turn::wait(admission.clone(), 0));
        let mut second = pin!(Turn::wait(admission.clone(), 0));
        assert!(look(first.as_mut()).is_none() && look(second.as_mut()).is_none());
        admission.give_back(0, 10);
        assert!(look(second.as_mut()).is_none());
        let turn = look(first.as_mut()).expect("it was first");
        assert!(turn.lasts(0));
        assert!(!admission.is_open(0), "nobody else comes between");
        assert!(look(second.as_mut()).is_none());
        drop(turn);
        drop(look(second.as_mut()).expect("its turn has come"));
        assert!(admission.is_calm() && admission.is_open(0));
    }

    #[test]
    fn a_turn_whose_connection_is_gone_passes_on() {
        let admission = full(1);
        let mut last = Box::pin(Turn::wait(admission.clone(), 0));
        {
            let mut gone = Box::pin(Turn::wait(admission.clone(), 0));
            assert!(look(gone.as_mut()).is_none());
            assert!(look(last.as_mut()).is_none());
            // It is told, and goes without having looked.
            admission.give_back(0, 10);
        }
        assert!(look(last.as_mut()).is_some());
    }

    #[test]
    fn a_turn_comes_to_who_asks_when_there_is_room_already() {
        let admission = Arc::new(Admission::new(1, true));
        assert!(look(pin!(Turn::wait(admission.clone(), 0))).is_some());
        admission.take(0, DEBT_MAX_US);
        let mut turn = pin!(Turn::wait(admission.clone(), 0));
        admission.give_back(0, 10);
        assert!(look(turn.as_mut()).is_some(), "room was given back before it was queued");
    }

    #[test]
    fn what_a_byte_costs_follows_what_it_took() {
        let admission = Admission::new(1, true);
        let took = |work: Work, ns_per_byte: u64| Duration::from_nanos(work.value_bytes * ns_per_byte);
        let many = Work { writes: 1_000, value_bytes: 1_000_000, vector_bytes: 0 };
        for ns_per_byte in [3_000, 20] {
            (0..100).for_each(|_| admission.learn(0, many, took(many, ns_per_byte)));
            let estimated = admission.estimate_us(0, TEXT);
            assert!(estimated.abs_diff(ns_per_byte) <= 2 + ns_per_byte / 5, "{estimated} and {ns_per_byte}");
        }
        // A machine that stands still for an hour makes no write cost an hour.
        admission.learn(0, TEXT, Duration::from_secs(3_600));
        assert!(admission.estimate_us(0, TEXT) <= 1 + NS_PER_MIB_MAX / 1_000_000);
        // Bytes that cost next to nothing for a long time are no reason to believe it for ever.
        (0..10_000).for_each(|_| admission.learn(0, many, Duration::from_micros(1_000)));
        (0..40).for_each(|_| admission.learn(0, many, took(many, 300)));
        let estimated = admission.estimate_us(0, TEXT);
        assert!(estimated.abs_diff(300) <= 60, "{estimated}");
        let vectors = Work { writes: 1, value_bytes: 0, vector_bytes: 6_000 };
        assert!(admission.estimate_us(0, vectors) < 100, "vectors are learned by themselves");
    }

    #[test]
    fn all_shards_together_let_in_no_more_bytes_than_the_node_may_have_under_way() {
        for shards in [1, 3, 256] {
            // Where nothing is indexed a byte costs no time.
            let admission = Admission::new(shards, false);
            let mib = Work { writes: 1, value_bytes: 1 << 20, vector_bytes: 0 };
            let mut mib_let_in = 0;
            for shard in 0..shards {
                while admission.has_room(shard) {
                    admission.take(shard, admission.estimate_us(shard, mib));
                    mib_let_in += 1;
                }
            }
            let most = limits::NODE_IN_FLIGHT_BYTES_MAX / 2 / (1 << 20);
            assert!(mib_let_in <= most + 2 * shards, "{mib_let_in} MiB over {shards} shards");
        }
    }
}
