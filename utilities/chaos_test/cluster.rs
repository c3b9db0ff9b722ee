//! Rounds of a cluster.
//!
//! ```text
//! start all ─► load ── interval ──► strike some ── they come back ──► quiet ─► converge ─► proof ─┐
//!                ▲             kill: at once or after a while           │                         │
//!                │             pause: after an election                 │ one write more          │
//!                │             the load goes on                         │ is acknowledged         │
//!                └────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use datastore_utilities::proof::{Fault, Place, Writers, converge, is_whole, leader, verify};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::arguments::Injected;
use crate::campaign::{Campaign, Stop, milliseconds};

/// A killed node stays away for up to so long, if it isn't started again at once.
const AWAY_MS_MAX: u64 = 3_000;
/// A pause is longer than an election, and shorter than twice that.
const PAUSE_MS: u64 = 2_000;
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);
/// Between two proofs of which the first found no leader to the end.
const PROOF_PAUSE: Duration = Duration::from_millis(200);

/// What a round does to one node.
struct Strike {
    place: usize,
    injected: Injected,
    away: Duration,
}

/// What a round has come to.
struct Round {
    number: u64,
    load: Duration,
    strikes: Vec<Strike>,
    /// Before the strike, as far as anybody said so.
    leader: Option<u64>,
    /// Set when leadership had to pass to another node.
    gap: Option<Duration>,
}

impl Campaign {
    pub(super) async fn run_cluster(&mut self) -> Result<(), Stop> {
        let took = self.start_all().await?;
        eprintln!("serving on {} after {}", self.nodes.addresses(), milliseconds(took));
        for number in 1..=self.arguments.rounds.unwrap_or(u64::MAX) {
            let load = self.interval();
            let mut writing = self.write();
            let strike_at = Instant::now() + load;
            while Instant::now() < strike_at {
                self.wait(sleep(POLL)).await?;
                if self.book.is_half_full() {
                    // A fault is to find room in the book, so this is a proof without one.
                    self.quiet(writing).await?;
                    self.prove_cluster().await?;
                    writing = self.write();
                    self.wait(sleep(load / 10)).await?;
                }
            }
            let round = self.strike(number, load).await?;
            self.quiet(writing).await?;
            self.prove_cluster().await?;
            self.progress.rounds = number;
            self.tell_round(&round);
        }
        Ok(())
    }

    /// Waits for something, unless a node ends.
    async fn wait<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Stop> {
        self.nodes.while_running(awaited).await.map_err(Stop::Failure)
    }

    async fn ask<T: Send + 'static>(
        &mut self,
        ask: impl FnOnce(Vec<Place>) -> T + Send + 'static,
    ) -> Result<T, Stop> {
        let places = self.nodes.places();
        self.wait(spawn_blocking(|| ask(places))).await?.map_err(|panic| Stop::Failure(panic.to_string()))
    }

    async fn start_all(&mut self) -> Result<Duration, Stop> {
        let began = Instant::now();
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for place in &all {
            self.nodes.process(*place).start().map_err(Stop::Failure)?;
        }
        self.await_serving(&all, began).await?;
        while !self.ask(|places| is_whole(&places)).await? {
            if began.elapsed() > self.arguments.start_timeout {
                let patience = self.arguments.start_timeout.as_secs_f64();
                return Err(Stop::Failure(format!("the nodes are no cluster within {patience} s")));
            }
            self.wait(sleep(POLL)).await?;
        }
        Ok(began.elapsed())
    }

    /// Waits until these answer.
    async fn await_serving(&mut self, places: &[usize], began: Instant) -> Result<(), Stop> {
        for place in places {
            let patience = self.arguments.start_timeout;
            let served = self.nodes.process(*place).wait_until_serving(patience).await;
            served.map_err(|told| Stop::Failure(format!("node {}: {told}", self.nodes.id(*place))))?;
            self.progress.starts_us.saturating_record(began.elapsed().as_micros() as u64);
        }
        Ok(())
    }

    fn write(&mut self) -> Option<JoinHandle<()>> {
        let connections = usize::from(self.arguments.connections);
        self.arguments.verify.then(|| {
            let places = self.nodes.places();
            let writers = Writers::follow(&places, connections, &self.book, &mut self.random);
            spawn_blocking(|| writers.join())
        })
    }

    /// Ends the writers, and waits until all that they have sent is answered.
    async fn quiet(&mut self, writing: Option<JoinHandle<()>>) -> Result<(), Stop> {
        let Some(writing) = writing else { return Ok(()) };
        self.book.close();
        self.wait(writing).await?.map_err(|panic| Stop::Failure(panic.to_string()))
    }

    /// Kills and pauses some nodes under load, and brings them back.
    async fn strike(&mut self, number: u64, load: Duration) -> Result<Round, Stop> {
        let leader = self.ask(|places| leader(&places)).await?.map(|place| place.node_id);
        let mut strikes = self.choose(leader);
        let is_struck = |strike: &Strike| Some(self.nodes.id(strike.place)) == leader;
        let left = self.nodes.len() - strikes.len();
        let is_failover = left > self.nodes.len() / 2 && strikes.iter().any(is_struck);

        self.book.take_gap();
        for strike in &strikes {
            match strike.injected {
                Injected::Kill => self.kill(strike.place).await,
                Injected::Pause => {
                    self.nodes.process(strike.place).pause();
                    self.progress.pauses += 1;
                }
            }
        }
        strikes.sort_by_key(|strike| strike.away);
        let began = Instant::now();
        for strike in &strikes {
            self.wait(sleep(strike.away.saturating_sub(began.elapsed()))).await?;
            self.bring_back(strike).await?;
        }
        self.await_acknowledgement().await?;
        let gap = Some(self.book.take_gap()).filter(|gap| is_failover && !gap.is_zero());
        if let Some(gap) = gap {
            self.progress.gaps_us.saturating_record(gap.as_micros() as u64);
        }
        Ok(Round { number, load, strikes, leader, gap })
    }

    /// Who is struck, and how: the leader first, half of the time.
    fn choose(&mut self, leader: Option<u64>) -> Vec<Strike> {
        let count = 1 + self.random.below(self.arguments.struck_max() as u64) as usize;
        let mut places: Vec<usize> = (0..self.nodes.len()).collect();
        for place in (1..places.len()).rev() {
            places.swap(place, self.random.below(place as u64 + 1) as usize);
        }
        if self.random.below(2) == 0 {
            places.sort_by_key(|place| Some(self.nodes.id(*place)) != leader);
        }
        places.truncate(count);
        places.into_iter().map(|place| self.strike_at(place)).collect()
    }

    fn strike_at(&mut self, place: usize) -> Strike {
        let injected = self.arguments.injected();
        let injected = injected[self.random.below(injected.len() as u64) as usize];
        let away_ms = match injected {
            Injected::Kill if self.random.below(2) == 0 => 0,
            Injected::Kill => self.random.below(AWAY_MS_MAX),
            Injected::Pause => PAUSE_MS + self.random.below(PAUSE_MS),
        };
        Strike { place, injected, away: Duration::from_millis(away_ms) }
    }

    async fn bring_back(&mut self, strike: &Strike) -> Result<(), Stop> {
        match strike.injected {
            Injected::Pause => self.nodes.process(strike.place).resume(),
            Injected::Kill => {
                self.kill_while_starting(strike.place).await?;
                let began = Instant::now();
                self.nodes.process(strike.place).start().map_err(Stop::Failure)?;
                self.await_serving(&[strike.place], began).await?;
            }
        }
        Ok(())
    }

    /// A cluster that is back must take writes again.
    async fn await_acknowledgement(&mut self) -> Result<(), Stop> {
        let (began, before) = (Instant::now(), self.book.acknowledged());
        while self.arguments.verify && self.book.acknowledged() == before && !self.book.is_finished() {
            if began.elapsed() > self.arguments.start_timeout {
                let patience = self.arguments.start_timeout.as_secs_f64();
                return Err(Stop::Failure(format!(
                    "no write was acknowledged for {patience} s with all nodes running"
                )));
            }
            self.wait(sleep(POLL)).await?;
        }
        Ok(())
    }

    /// Holds the nodes to each other, and the leader to what all have said.
    async fn prove_cluster(&mut self) -> Result<(), Stop> {
        if !self.arguments.verify {
            return Ok(());
        }
        let (book, patience) = (self.book.clone(), self.arguments.start_timeout);
        let converged = self.ask(move |places| {
            let keys = book.with(|ledger| ledger.keys().clone());
            let faults = converge(&places, &book.names, &keys, patience)?;
            book.with(|ledger| ledger.figures.count(&faults));
            Ok::<_, String>(faults)
        });
        let mut faults = converged.await?.map_err(Stop::Failure)?;
        faults.extend(self.hold_leader().await?);
        if faults.is_empty() { Ok(()) } else { Err(Stop::Violation(faults)) }
    }

    /// The leader may change while it is read, and then another one is.
    async fn hold_leader(&mut self) -> Result<Vec<Fault>, Stop> {
        let patience = self.arguments.start_timeout;
        let began = Instant::now();
        loop {
            let book = self.book.clone();
            let verified = self.ask(move |places| {
                let place = leader(&places).ok_or_else(|| "nobody leads".to_string())?;
                book.with(|ledger| verify(place.address, &book.names, ledger))
            });
            match verified.await? {
                Ok(faults) => return Ok(faults),
                Err(told) if began.elapsed() > patience => return Err(Stop::Failure(told)),
                Err(_) => self.wait(sleep(PROOF_PAUSE)).await?,
            }
        }
    }

    fn tell_round(&self, round: &Round) {
        let strikes = round.strikes.iter().map(|strike| {
            let id = self.nodes.id(strike.place);
            let done = match strike.injected {
                Injected::Kill => "killed",
                Injected::Pause => "paused",
            };
            let leader = if round.leader == Some(id) { " (the leader)" } else { "" };
            format!("{done} node {id}{leader} for {:.2} s", strike.away.as_secs_f64())
        });
        let strikes: Vec<String> = strikes.collect();
        let gap = round
            .gap
            .map_or(String::new(), |gap| format!(", no write acknowledged for {}", milliseconds(gap)));
        let struck = format!(
            "round {}: after {:.2} s {}{gap}",
            round.number,
            round.load.as_secs_f64(),
            strikes.join(", ")
        );
        let figures = self.book.with(|ledger| ledger.figures);
        if self.arguments.verify {
            eprintln!(
                "{struck}; so far {} acknowledged, {} refused, {} unknown: all proven",
                figures.acknowledged, figures.refused, figures.unknown
            );
        } else {
            eprintln!("{struck}");
        }
    }
}
