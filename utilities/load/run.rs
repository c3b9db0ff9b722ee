//! The loop: one thread, one epoll, all connections.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::connection::Connection;
use super::data::Data;
use super::outcome::Outcome;
use super::protocol::{Asked, Protocol, judge};
use crate::random::Random;

/// How often the caller is asked whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY_TIMESPEC: Timespec = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.as_nanos() as _ };
/// Without any reply for so long the run is given up: longer than a node takes
/// to answer `timeout`.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const EVENTS_MAX: usize = 256;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// No batch is begun after so long.
    Time(Duration),
    /// So many requests.
    Count(u64),
}

/// Which key comes next.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Each key once, from the first one on.
    InTurn,
    /// Any key.
    Random,
}

/// A run.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// Keys and values.
    pub data: &'a Data,
    /// Connections, all opened before the first request.
    pub connections: usize,
    /// Requests of a batch.
    pub pipeline: usize,
    /// The number of keys.
    pub keys: u64,
    /// Which of them come.
    pub order: Order,
    /// The share of requests that are reads, 0 to 1.
    pub reads: f64,
    /// When it ends.
    pub until: Until,
    /// What is random comes again with the same seed.
    pub seed: u64,
}

impl Plan<'_> {
    /// Writes each key once, over so many connections and in such batches that no
    /// server waits for the generator.
    pub fn fill(data: &Data, keys: u64, seed: u64) -> Plan<'_> {
        Plan {
            data,
            connections: 50,
            pipeline: 64,
            keys,
            order: Order::InTurn,
            reads: 0.0,
            until: Until::Count(keys),
            seed,
        }
    }
}

/// Runs the plan. About ten times a second `go_on` is told how many requests
/// were answered, and says whether to go on. Gives an error when the run could
/// not begin; all that goes wrong later is in the outcome.
pub fn run<P: Protocol>(
    address: SocketAddr,
    protocol: &P,
    plan: &Plan,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<Outcome, String> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| format!("epoll: {error}"))?;
    let mut connections = Vec::new();
    for token in 0..plan.connections {
        let cannot = |error: io::Error| format!("cannot connect to {address}: {error}");
        let connection = Connection::open(address, protocol.clone()).map_err(cannot)?;
        watch(&epoll, &connection, token as u64, epoll::add).map_err(cannot)?;
        connections.push(connection);
    }
    let generator = Generator {
        plan,
        epoll,
        random: Random::new(plan.seed),
        begun: 0,
        waiting: 0,
        deadline: None,
        outcome: Outcome::new()?,
        key: Vec::new(),
        value: Vec::new(),
    };
    Ok(generator.drive(&mut connections, go_on))
}

struct Generator<'a> {
    plan: &'a Plan<'a>,
    epoll: OwnedFd,
    random: Random,
    /// Requests written so far.
    begun: u64,
    /// Requests that may still be answered.
    waiting: usize,
    deadline: Option<Instant>,
    outcome: Outcome,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Generator<'_> {
    fn drive<P: Protocol>(
        mut self,
        connections: &mut [Connection<P>],
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Outcome {
        let cpu_before = thread_cpu();
        let began = Instant::now();
        if let Until::Time(time) = self.plan.until {
            self.deadline = Some(began + time);
        }
        for (token, connection) in connections.iter_mut().enumerate() {
            if let Err(error) = self.next_batch(connection, began, token as u64) {
                self.lose(connection, &error);
            }
        }
        let ended = self.serve(connections, began, go_on);
        self.outcome.elapsed = ended - began;
        self.outcome.generator_cpu = thread_cpu().saturating_sub(cpu_before);
        self.outcome.unanswered += self.waiting as u64;
        self.outcome
    }

    /// Serves sockets until nothing is waited for; gives the time of the last reply.
    fn serve<P: Protocol>(
        &mut self,
        connections: &mut [Connection<P>],
        began: Instant,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Instant {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut last_reply = began;
        let mut look_at = began + LOOK_EVERY;
        while self.waiting > 0 {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&LOOK_EVERY_TIMESPEC)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    self.outcome.fault(format!("epoll: {error}"));
                    break;
                }
            }
            let answered = self.outcome.answered;
            let mut now = None;
            for event in &events {
                let token = event.data.u64();
                let connection = &mut connections[token as usize];
                match self.serve_one(connection, token) {
                    Ok(at) => now = Some(at),
                    Err(error) => self.lose(connection, &error),
                }
            }
            let now = now.unwrap_or_else(Instant::now);
            if self.outcome.answered > answered {
                last_reply = now;
            } else if now - last_reply > SILENCE_MAX {
                self.outcome.fault(format!("no reply came for {} s", SILENCE_MAX.as_secs()));
                break;
            }
            if now >= look_at {
                look_at = now + LOOK_EVERY;
                if !go_on(self.outcome.answered) {
                    self.outcome.is_interrupted = true;
                    break;
                }
            }
        }
        last_reply
    }

    /// Gives a connection up: its requests stay without an answer.
    fn lose<P: Protocol>(&mut self, connection: &mut Connection<P>, error: &io::Error) {
        let waiting = connection.waiting();
        self.waiting -= waiting;
        self.outcome.unanswered += waiting as u64;
        self.outcome.fault(format!("a connection was lost: {error}"));
        connection.batch.clear();
        connection.answered = 0;
        // Its end would be reported for ever. It fails only for a socket that isn't watched.
        let _ = epoll::delete(&self.epoll, &connection.stream);
    }

    /// Takes the replies that are there; gives the time at which they were read.
    fn serve_one<P: Protocol>(&mut self, connection: &mut Connection<P>, token: u64) -> io::Result<Instant> {
        if connection.is_blocked {
            self.send(connection, token)?;
        }
        connection.receive()?;
        let now = Instant::now();
        let before = connection.answered;
        while connection.waiting() > 0 {
            let asked = connection.batch[connection.answered];
            let Some(answer) = connection.reply() else { break };
            let verdict = judge(asked, answer, self.plan.data);
            connection.answered += 1;
            self.outcome.count(verdict);
        }
        let replies = connection.answered - before;
        self.waiting -= replies;
        self.outcome.took(now - connection.sent_at, replies as u64);
        if connection.waiting() == 0 {
            if connection.has_more() {
                return Err(io::Error::other("there were more replies than requests"));
            }
            self.next_batch(connection, now, token)?;
        }
        Ok(now)
    }

    /// Sends the next batch, unless the run is over.
    fn next_batch<P: Protocol>(
        &mut self,
        connection: &mut Connection<P>,
        now: Instant,
        token: u64,
    ) -> io::Result<()> {
        let left = match self.plan.until {
            Until::Count(count) => count - self.begun,
            Until::Time(_) if self.deadline.is_some_and(|deadline| now >= deadline) => 0,
            Until::Time(_) => u64::MAX,
        };
        connection.batch.clear();
        connection.answered = 0;
        for _ in 0..left.min(self.plan.pipeline as u64) {
            self.request(connection);
        }
        if connection.batch.is_empty() {
            return Ok(());
        }
        self.waiting += connection.batch.len();
        connection.sent_at = Instant::now();
        self.send(connection, token)
    }

    /// Sends, and asks to be told when a full socket has room again.
    fn send<P: Protocol>(&self, connection: &mut Connection<P>, token: u64) -> io::Result<()> {
        let was_blocked = connection.is_blocked;
        connection.send()?;
        if connection.is_blocked != was_blocked {
            watch(&self.epoll, connection, token, epoll::modify)?;
        }
        Ok(())
    }

    fn request<P: Protocol>(&mut self, connection: &mut Connection<P>) {
        let plan = self.plan;
        let number = match plan.order {
            Order::InTurn => self.begun % plan.keys,
            Order::Random => self.random.below(plan.keys),
        };
        self.begun += 1;
        let is_read = plan.reads > 0.0 && self.random.happens(plan.reads);
        self.key.clear();
        plan.data.key(number, &mut self.key);
        if !is_read {
            self.value.clear();
            plan.data.value(number, &mut self.random, &mut self.value);
        }
        connection.ask(Asked { number, is_read }, &self.key, &self.value);
    }
}

/// `epoll::add` or `epoll::modify`.
type Register<'a> =
    fn(&'a OwnedFd, &'a TcpStream, epoll::EventData, epoll::EventFlags) -> rustix::io::Result<()>;

/// Watches a connection for what it waits for.
fn watch<'a, P: Protocol>(
    epoll: &'a OwnedFd,
    connection: &'a Connection<P>,
    token: u64,
    register: Register<'a>,
) -> io::Result<()> {
    let room = if connection.is_blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
    register(epoll, &connection.stream, epoll::EventData::new_u64(token), epoll::EventFlags::IN | room)?;
    Ok(())
}

/// Processor time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
