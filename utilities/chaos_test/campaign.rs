//! Rounds of load, kill, restart and proof, for one node.
//!
//! ```text
//! start ─► load ── interval ──► kill ─► start ─► proof ─┐
//!            ▲                                          │
//!            └──────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use datastore_utilities::proof::{Book, Fault, Names, Writers, verify};
use datastore_utilities::random::Random;
use hdrhistogram::Histogram;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::arguments::Arguments;
use crate::nodes::Nodes;
use crate::process::Process;

/// The place of a node that is on its own.
const ONLY: usize = 0;
/// One in so many restarts is killed while it starts, and started once more.
const KILL_WHILE_STARTING: u64 = 4;
/// An hour: the longest start or gap that is told apart.
const DURATION_US_MAX: u64 = 3_600_000_000;
/// Parts of an interval, for its jitter.
const INTERVAL_PARTS: u32 = 1_000;
/// How long a node that broke its connections may take until it is seen to have ended.
const END_SEEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the rounds ended before their number was reached.
pub enum Stop {
    /// The node shows what it must not show.
    Violation(Vec<Fault>),
    /// The command failed.
    Failure(String),
    /// Someone asked for it.
    Interrupt,
}

/// What has been done so far.
pub struct Progress {
    /// Kills that were followed by a restart and, with `--verify`, by a proof.
    pub rounds: u64,
    /// Kills, those while it started included.
    pub kills: u64,
    /// Pauses of a cluster's nodes.
    pub pauses: u64,
    /// From each start to its first answer, in microseconds.
    pub starts_us: Histogram<u64>,
    /// For each time that a cluster's leader was struck and a majority was left: the longest
    /// time between two acknowledged writes around it, in microseconds.
    pub gaps_us: Histogram<u64>,
}

/// One node or a cluster, and what is done to it.
pub struct Campaign {
    pub(super) arguments: Arguments,
    pub(super) nodes: Nodes,
    pub(super) random: Random,
    /// What the writers of `--verify` know.
    pub book: Arc<Book>,
    /// Figures.
    pub progress: Progress,
}

impl Campaign {
    pub fn new(arguments: Arguments, nodes: Nodes, seed: u64, names: Names) -> Result<Campaign, String> {
        const DIGITS: u8 = 3;
        let histogram =
            || Histogram::new_with_bounds(1, DURATION_US_MAX, DIGITS).map_err(|error| error.to_string());
        let (starts_us, gaps_us) = (histogram()?, histogram()?);
        let progress = Progress { rounds: 0, kills: 0, pauses: 0, starts_us, gaps_us };
        let (random, book) = (Random::new(seed), Arc::new(Book::new(names)));
        Ok(Campaign { arguments, nodes, random, book, progress })
    }

    /// All rounds. May be dropped at any point; then [`Campaign::end`] it.
    pub async fn run(&mut self) -> Result<(), Stop> {
        for place in 0..self.nodes.len() {
            self.nodes.process(place).refuse_a_taken_address().await.map_err(Stop::Failure)?;
        }
        if self.nodes.len() > 1 { self.run_cluster().await } else { self.run_one().await }
    }

    async fn run_one(&mut self) -> Result<(), Stop> {
        let took = self.start().await?;
        eprintln!("serving on {} after {}", self.nodes.addresses(), milliseconds(took));
        for round in 1..=self.arguments.rounds.unwrap_or(u64::MAX) {
            let interval = self.interval();
            self.load(interval).await?;
            if !self.arguments.restart {
                eprintln!("killed after {:.2} s", interval.as_secs_f64());
                return Ok(());
            }
            self.kill_while_starting(ONLY).await?;
            let took = self.start().await?;
            self.prove().await?;
            self.progress.rounds = round;
            self.tell(round, interval, took);
        }
        Ok(())
    }

    /// Ends all nodes, whatever they are doing.
    pub async fn end(&mut self) {
        self.book.close();
        self.nodes.end().await;
    }

    fn node(&mut self) -> &mut Process {
        self.nodes.process(ONLY)
    }

    pub(super) fn interval(&mut self) -> Duration {
        let jitter = self.random.below(u64::from(INTERVAL_PARTS / 2)) as u32;
        self.arguments.interval * (INTERVAL_PARTS * 3 / 4 + jitter) / INTERVAL_PARTS
    }

    async fn start(&mut self) -> Result<Duration, Stop> {
        let began = Instant::now();
        let patience = self.arguments.start_timeout;
        self.node().start().map_err(Stop::Failure)?;
        self.node().wait_until_serving(patience).await.map_err(Stop::Failure)?;
        let took = began.elapsed();
        self.progress.starts_us.saturating_record(took.as_micros() as u64);
        Ok(took)
    }

    pub(super) async fn kill(&mut self, place: usize) {
        self.nodes.process(place).kill().await;
        self.progress.kills += 1;
    }

    /// A crash can come while the last one is being recovered from.
    pub(super) async fn kill_while_starting(&mut self, place: usize) -> Result<(), Stop> {
        if self.random.below(KILL_WHILE_STARTING) > 0 {
            return Ok(());
        }
        let usual_us = self.progress.starts_us.value_at_quantile(0.5);
        self.nodes.process(place).start().map_err(Stop::Failure)?;
        let moment = Duration::from_micros(self.random.below(usual_us + 1));
        tokio::select! {
            () = sleep(moment) => self.kill(place).await,
            failure = self.nodes.ended() => return Err(Stop::Failure(failure)),
        }
        Ok(())
    }

    /// Load for this long, and then a kill under it.
    async fn load(&mut self, interval: Duration) -> Result<(), Stop> {
        let mut kill_at = Instant::now() + interval;
        loop {
            let connections = usize::from(self.arguments.connections);
            let mut writing = self.arguments.verify.then(|| {
                let address = self.node().address();
                let writers = Writers::start(address, connections, &self.book, &mut self.random);
                spawn_blocking(|| writers.join())
            });
            let written = async {
                match &mut writing {
                    Some(writing) => writing.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(kill_at) => {}
                failure = self.nodes.ended() => return Err(Stop::Failure(failure)),
                joined = written => {
                    // The book is full, or the connections broke: a proof without a kill.
                    joined.map_err(|panic| Stop::Failure(panic.to_string()))?;
                    self.prove().await?;
                    // A kill is to fall into writes, so some come first.
                    kill_at = kill_at.max(Instant::now() + interval / 10);
                    continue;
                }
            }
            self.kill(ONLY).await;
            if let Some(writing) = writing {
                writing.await.map_err(|panic| Stop::Failure(panic.to_string()))?;
            }
            return Ok(());
        }
    }

    /// Holds what the node shows to what it has said.
    async fn prove(&mut self) -> Result<(), Stop> {
        if !self.arguments.verify {
            return Ok(());
        }
        let (book, address) = (self.book.clone(), self.node().address());
        let verified = spawn_blocking(move || book.with(|ledger| verify(address, &book.names, ledger)));
        let failure = match verified.await {
            Ok(Ok(faults)) if faults.is_empty() => return Ok(()),
            Ok(Ok(faults)) => return Err(Stop::Violation(faults)),
            Ok(Err(failure)) => failure,
            Err(panic) => panic.to_string(),
        };
        // A node that has ended says more about it than a connection that broke.
        let ended = timeout(END_SEEN_TIMEOUT, self.nodes.ended()).await;
        Err(Stop::Failure(ended.unwrap_or(failure)))
    }

    fn tell(&self, round: u64, interval: Duration, start: Duration) {
        let figures = self.book.with(|ledger| ledger.figures);
        let killed = format!("round {round}: killed after {:.2} s", interval.as_secs_f64());
        let serving = format!("serving again after {}", milliseconds(start));
        if self.arguments.verify {
            eprintln!(
                "{killed}, {serving}; so far {} acknowledged, {} refused, {} unknown: all proven",
                figures.acknowledged, figures.refused, figures.unknown
            );
        } else {
            eprintln!("{killed}, {serving}");
        }
    }
}

pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
