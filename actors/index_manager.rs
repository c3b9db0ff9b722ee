//! IndexManager: owns the indexes over one shard's slice, on a thread of its
//! own, so that a search never stops a shard. The order of its mailbox is the
//! promise that what was acknowledged is found: a shard sends the change before
//! it lets the answer go.
//!
//! A change is applied when it comes. A search may be done later than it came,
//! since it only sees more: searches wait in lanes, one a connection, that take
//! turns. So nobody waits for all that another one has asked for. Searches and
//! changes have the thread by turns, too, and a search that nobody waits for any
//! more is not begun, or given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use datastore::engine::{Change, Entry};
use datastore::error::{Code, Detail, Error};
use datastore::indexing::{Budget, Indexes, slices};
use datastore::query::{Progress, Query, Resume};

use crate::admission::{PermitTotal, Work};
use crate::at_once::{pieces_of, run_at_once};
use crate::connection::ConnectionMessage;
use crate::fair_queue::FairQueue;
use crate::mailbox::{Counted, Mailbox};
use crate::node::{Node, lock};
use crate::shard::Shard;
use crate::shard_messages::{Search, ShardMessage};

/// How long changes have the thread while searches wait, and searches while changes do. One that is
/// begun may take longer.
const TURN: Duration = Duration::from_millis(10);

/// About so many entries come at once while the indexes are built: enough for all threads, and for words that
/// come again, and few enough that the shard serves between and changes don't wait for long.
pub(crate) const BUILD_ENTRIES: usize = 8_192;
/// And about so much of memory at most, unless a bucket of the keyspace alone has more: some tenths of a second for long
/// texts.
pub(crate) const BUILD_BYTES: usize = 4 << 20;

/// What an IndexManager hears.
pub enum IndexMessage {
    /// From its Shard, in the order in which they were applied.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// What to give back when they are indexed.
        permits: PermitTotal,
    },
    /// From its Shard, after the start: entries of the next buckets.
    Build {
        /// Their entries.
        entries: Vec<Entry>,
        /// Buckets handed over, these included.
        buckets_done: usize,
        /// All of the shard's.
        buckets_total: usize,
    },
    /// From its Shard: another state takes the place of what is indexed; its entries follow.
    Clear,
    /// From a Connection, or by way of its Shard.
    Search(Search),
}

/// A search that waits for its turn.
enum Waiting {
    /// As it came: its mailbox counts it until it is begun.
    New(Counted<IndexMessage>),
    /// It was begun, and goes on from here; begins again, if there is no such place any more.
    Begun(Search, Option<Resume>),
}

/// The actor.
pub struct IndexManager {
    number: usize,
    node: Arc<Node>,
    indexes: Indexes,
    hash_key: (u64, u64),
    shard: Mailbox<Shard>,
    /// Buckets indexed of all, since the start.
    progress: (usize, usize),
    /// When the build under way began.
    build_began: Instant,
    /// This shard's part of the node's cores.
    build_threads: usize,
    published_memory: i64,
    waiting: FairQueue<Waiting>,
    /// How many of them were begun.
    begun: usize,
    /// A turn of the searches is due when the mailbox is empty.
    turn_is_due: bool,
    /// How long changes have had the thread since the searches' last turn.
    changing: Duration,
}

impl IndexManager {
    /// Empty indexes of a shard of `buckets_total` buckets, all of them still
    /// `to_build`: the shard brings their entries when it starts.
    pub fn new(
        number: usize,
        node: Arc<Node>,
        shard: Mailbox<Shard>,
        hash_key: (u64, u64),
        (buckets_total, to_build): (usize, bool),
    ) -> IndexManager {
        let indexes = Indexes::new(node.settings.indexes, hash_key);
        let buckets_done = if to_build { 0 } else { buckets_total };
        node.shard_figures[number].buckets_indexed.store(buckets_done, Ordering::Relaxed);
        let progress = (buckets_done, buckets_total);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let build_threads = cores.div_ceil(node.settings.shards);
        IndexManager {
            number,
            node,
            indexes,
            hash_key,
            shard,
            progress,
            build_began: Instant::now(),
            build_threads,
            published_memory: 0,
            waiting: FairQueue::default(),
            begun: 0,
            turn_is_due: false,
            changing: Duration::ZERO,
        }
    }

    /// Applies changes; gives how long that took, without the searches between.
    fn change(&mut self, changes: &[Change]) -> Duration {
        let (mut took, mut began) = (Duration::ZERO, Instant::now());
        for change in changes {
            self.indexes.apply(change);
            if !self.waiting.is_empty() {
                // All that wait came before this change: they may see it, and need not.
                let since = began.elapsed();
                took += since;
                self.changing += since;
                self.searches_after_changes();
                began = Instant::now();
            }
        }
        self.changing += began.elapsed();
        took + began.elapsed()
    }

    fn build(&mut self, entries: Vec<Entry>, buckets_done: usize, buckets_total: usize) {
        let began = Instant::now();
        let digester = self.indexes.digester();
        let slices: Vec<&[Entry]> = slices(&entries).collect();
        let (mut digests, mut next) = (Vec::new(), Vec::new());
        // More slices than threads, so that none is done long before the others.
        for slices in slices.chunks(2 * self.build_threads) {
            // The next values are read while the words of those before are put in: no thread waits for the other.
            let mut pieces = self.indexes.build(&digests, false);
            pieces.extend(pieces_of(slices, &mut next, move |slice| digester.digest(slice)));
            run_at_once(self.build_threads, pieces);
            digests = std::mem::take(&mut next).into_iter().flatten().collect();
        }
        let is_last = buckets_done == buckets_total;
        run_at_once(self.build_threads, self.indexes.build(&digests, is_last));
        self.progress = (buckets_done, buckets_total);
        let figures = &self.node.shard_figures[self.number];
        figures.buckets_indexed.store(buckets_done, Ordering::Relaxed);
        let expected = self.build_expected().map_or(0, |expected| expected.as_millis() as u64);
        figures.build_expected_ms.store(expected, Ordering::Relaxed);
        self.shard.send(ShardMessage::BucketsIndexed);
        // The next step is in the mailbox already: without a turn of their own searches would not
        // hear before the end that it isn't there yet.
        self.changing += began.elapsed();
        if is_last {
            let (shard, seconds) = (self.number, self.build_began.elapsed().as_secs_f64());
            tracing::info!(shard, "the indexes are built: it took {seconds:.1} s; searches are answered");
        }
    }

    /// How long the rest of the build will take if it goes on as it has begun; `None` before the first step.
    fn build_expected(&self) -> Option<Duration> {
        let (done, total) = self.progress;
        (done > 0).then(|| self.build_began.elapsed().mul_f64((total - done) as f64 / done as f64))
    }

    /// The searches' turn, if changes have had theirs.
    fn searches_after_changes(&mut self) {
        if self.changing >= TURN {
            self.searches();
        }
    }

    /// A turn of the searches: as many as fit in, one at least.
    fn searches(&mut self) {
        let began = Instant::now();
        while let Some((asker, waiting)) = self.waiting.pop() {
            let (search, resume, _handling) = match waiting {
                Waiting::Begun(search, resume) => {
                    self.begun -= 1;
                    (search, resume, None)
                }
                Waiting::New(counted) => match counted.begin() {
                    Some((IndexMessage::Search(search), handling)) => (search, None, Some(handling)),
                    _ => continue,
                },
            };
            if let Some(resume) = self.search(&search, resume) {
                self.begun += 1;
                self.waiting.push_again(asker, Waiting::Begun(search, Some(resume)));
            }
            if began.elapsed() >= TURN {
                break;
            }
        }
        self.indexes.searches_under_way(self.begun > 0);
        self.changing = Duration::ZERO;
        let figures = &self.node.shard_figures[self.number];
        figures.searches_waiting.store(self.waiting.len(), Ordering::Relaxed);
    }

    /// Works on a search and answers it; if there is more to do, says where to go on.
    fn search(&self, search: &Search, resume: Option<Resume>) -> Option<Resume> {
        let Search { sequence, query, reply_to, awaited } = search;
        let figures = &self.node.shard_figures[self.number];
        let wanted = || awaited.is_awaited();
        let step = match wanted() {
            true => self.run(query, resume, &Budget::new(&wanted)),
            false => None,
        };
        let part = match step {
            Some(Progress::GoOn(resume)) => return Some(resume),
            Some(Progress::Done(part)) => {
                figures.searches_done.fetch_add(1, Ordering::Relaxed);
                part
            }
            None => {
                figures.searches_dropped.fetch_add(1, Ordering::Relaxed);
                if awaited.is_gone() {
                    return None;
                }
                // Its connection has said so already, or is about to; but it counts the answers.
                Err(Error::new(Code::Timeout, "the search was given up: its time was over"))
            }
        };
        reply_to.send(ConnectionMessage::Found { sequence: *sequence, part });
        None
    }

    /// `None`: it was given up.
    fn run(&self, query: &Query, resume: Option<Resume>, budget: &Budget<'_>) -> Option<Progress> {
        let (done, total) = self.progress;
        if done < total {
            let progress = done as f64 / total as f64;
            let percent = 100 * done / total;
            let expected = self.build_expected();
            let rest = expected.map(|expected| format!(", about {:.1} s more", expected.as_secs_f64()));
            let message = format!(
                "the indexes are being rebuilt after the start: {percent} % done{}",
                rest.unwrap_or_default()
            );
            let expected_ms = expected.map(|expected| expected.as_millis() as u64);
            let detail = Detail::Indexing(progress, expected_ms);
            let error = Error::new(Code::IndexNotReady, message).with_detail(detail);
            return Some(Progress::Done(Err(error)));
        }
        query.run(&self.indexes, resume, budget).ok()
    }

    /// A search takes its place; the searches' turn comes when the mailbox is empty.
    fn wait(&mut self, asker: usize, search: Counted<IndexMessage>, context: &mut Context<Self>) {
        self.waiting.push(asker, Waiting::New(search));
        let figures = &self.node.shard_figures[self.number];
        figures.searches_waiting.store(self.waiting.len(), Ordering::Relaxed);
        self.set_turn(context);
    }

    fn set_turn(&mut self, context: &mut Context<Self>) {
        if !self.turn_is_due && !self.waiting.is_empty() {
            self.turn_is_due = true;
            context.notify(SearchTurn);
        }
    }

    fn publish(&mut self) {
        let sizes = self.indexes.sizes();
        let memory = sizes.bytes() as i64;
        self.node.permits.memory_changed(memory - self.published_memory);
        self.published_memory = memory;
        *lock(&self.node.shard_figures[self.number].indexes) = (sizes, self.indexes.rooms());
    }
}

/// What these changes are held to take, by what they bring.
fn work(changes: &[Change]) -> Work {
    let mut work = Work { writes: changes.len() as u64, ..Work::default() };
    for Change { old, new } in changes {
        let Some(new) = new else { continue };
        // A write of the one leaves the other as it is, which is not indexed again.
        let old = old.as_ref();
        if old.and_then(Entry::value) != new.value() {
            work.value_bytes += new.value().map_or(0, <[u8]>::len) as u64;
        }
        if old.and_then(Entry::vector) != new.vector() {
            work.vector_bytes += new.vector().map_or(0, <[f32]>::len) as u64 * 4;
        }
    }
    work
}

/// To itself: the mailbox is empty.
struct SearchTurn;

impl Message for SearchTurn {
    type Result = ();
}

impl Handler<SearchTurn> for IndexManager {
    type Result = ();

    fn handle(&mut self, _: SearchTurn, context: &mut Self::Context) {
        self.turn_is_due = false;
        self.searches();
        self.set_turn(context);
    }
}

impl Actor for IndexManager {
    type Context = Context<Self>;
}

impl Handler<Counted<IndexMessage>> for IndexManager {
    type Result = ();

    fn handle(&mut self, counted: Counted<IndexMessage>, context: &mut Self::Context) {
        if let Some(IndexMessage::Search(search)) = counted.message() {
            let asker = search.awaited.asker();
            return self.wait(asker, counted, context);
        }
        let Some((message, _handling)) = counted.begin() else { return };
        match message {
            IndexMessage::Changes { changes, permits } => {
                let took = self.change(&changes);
                self.publish();
                self.node.permits.admission.learn(self.number, work(&changes), took);
                self.node.permits.give_back(self.number, permits);
            }
            IndexMessage::Build { entries, buckets_done, buckets_total } => {
                self.build(entries, buckets_done, buckets_total);
                self.publish();
            }
            IndexMessage::Clear => {
                self.indexes = Indexes::new(self.node.settings.indexes, self.hash_key);
                // What was begun begins again, on what comes in their place.
                self.waiting.for_each(|waiting| {
                    if let Waiting::Begun(_, resume) = waiting {
                        *resume = None;
                    }
                });
                self.progress.0 = 0;
                self.build_began = Instant::now();
                self.node.shard_figures[self.number].build_expected_ms.store(0, Ordering::Relaxed);
                self.node.shard_figures[self.number].buckets_indexed.store(0, Ordering::Relaxed);
                self.publish();
            }
            // They wait: see above.
            IndexMessage::Search(_) => {}
        }
        self.searches_after_changes();
    }
}
