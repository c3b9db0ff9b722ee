//! Which node a request goes to, and where next when it isn't taken there.
//!
//! ```text
//!   writes, linearizable reads ──► leader ──┐
//!                                           ├──► a connection per node
//!   local reads, ping, stats … ──► near ────┘
//! ```
//!
//! Both begin at the first address. `leader` goes where a `not_leader` points
//! and, while nobody leads, around the addresses; both leave an address where no
//! connection can be opened, and one that has [fallen silent](super::silence). Only what
//! certainly did not happen is sent again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::connection::{self, Call, Target};
use super::error::{CONNECTION_LOST, Error, NOT_CONNECTED};
use super::request::Reply;
use super::silence::SilentNodes;
use super::{Options, WAITING_CALLS_MAX};
use crate::error::{Code, Outcome};

/// Between two rounds over all nodes, the first time.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// It doubles as far as this: an election takes about a second.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Which of the two places a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The node that leads.
    Leader,
    /// The node that was asked for: the first address that can be reached.
    Near,
}

/// A node and the way to the task that owns its connection, which ends with the last link.
pub(super) struct Link {
    pub address: String,
    calls: mpsc::Sender<Call>,
}

impl Link {
    /// Hands a line to the connection's task, waiting for room.
    pub async fn enqueue(&self, line: Bytes, changes: bool) -> oneshot::Receiver<Result<Reply, Error>> {
        let (done, reply) = oneshot::channel();
        // A task that is gone drops `done`, which the receiver tells.
        self.calls.send(Call { line, changes, done }).await.ok();
        reply
    }

    /// Waits for the reply to a line.
    pub async fn wait(
        &self,
        reply: oneshot::Receiver<Result<Reply, Error>>,
        changes: bool,
    ) -> Result<Reply, Error> {
        reply.await.unwrap_or_else(|_| {
            let message = format!("{}: the runtime of this connector has ended", self.address);
            Err(Error::unanswered(CONNECTION_LOST, message, changes))
        })
    }
}

/// Where each route leads at the moment.
struct Places {
    leader: Arc<Link>,
    near: Arc<Link>,
}

impl Places {
    fn of(&mut self, route: Route) -> &mut Arc<Link> {
        match route {
            Route::Leader => &mut self.leader,
            Route::Near => &mut self.near,
        }
    }
}

/// The nodes of one cluster, as far as a connector knows them.
pub(super) struct Nodes {
    given: Vec<Arc<Link>>,
    options: Options,
    runtime: Handle,
    places: Mutex<Places>,
    silent: Arc<SilentNodes>,
}

impl Nodes {
    /// Of one address, or several with commas between them.
    pub fn new(addresses: &str, options: Options) -> Nodes {
        let (runtime, silent) = (Handle::current(), Arc::new(SilentNodes::default()));
        let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
        let target = |address: &str| target(address, &addresses, &options, &silent);
        let given: Vec<Arc<Link>> =
            addresses.iter().map(|address| Arc::new(open(&runtime, target(address)))).collect();
        let places = Places { leader: given[0].clone(), near: given[0].clone() };
        Nodes { given, options, runtime, places: Mutex::new(places), silent }
    }

    /// Where a request begins: where the route leads, or at another node if that one is silent.
    fn start(&self, route: Route) -> Arc<Link> {
        let place = self.places().of(route).clone();
        let others = [&place].into_iter().chain(&self.given);
        let there = others.into_iter().find(|link| !self.silent.has(&link.address)).cloned();
        there.unwrap_or(place)
    }

    /// The lock is held to read and write places, which are whole whatever happens.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a node that is not among these; where the route leads now before all others.
    fn other(&self, route: Route, asked: &[Arc<Link>]) -> Option<String> {
        let place = self.places().of(route).clone();
        let addresses = [&place].into_iter().chain(&self.given).map(|link| &link.address);
        let may_answer = |address: &&String| !is_among(asked, address) && !self.silent.has(address);
        addresses.into_iter().find(may_answer).cloned()
    }

    /// Gives the node of an address, and moves a route there unless another
    /// request has moved it. In one step, so that requests that are led on at
    /// once share one new connection.
    fn go(&self, route: Route, from: &Link, to: &str) -> Arc<Link> {
        let mut places = self.places();
        let known = [&places.leader, &places.near].into_iter().chain(&self.given);
        let node = known.into_iter().find(|link| link.address == to).cloned();
        let node = node.unwrap_or_else(|| {
            let given: Vec<&str> = self.given.iter().map(|link| link.address.as_str()).collect();
            Arc::new(open(&self.runtime, target(to, &given, &self.options, &self.silent)))
        });
        let place = places.of(route);
        if place.address == from.address {
            *place = node.clone();
        }
        node
    }
}

fn target(address: &str, given: &[&str], options: &Options, silent: &Arc<SilentNodes>) -> Target {
    let has_others = given.iter().any(|other| *other != address);
    Target {
        address: address.to_string(),
        connect_timeout: options.connect_timeout,
        timeout: options.timeout,
        silence: has_others.then_some(options.silence),
        silent: silent.clone(),
    }
}

/// Starts the task that connects when the first call comes.
fn open(runtime: &Handle, target: Target) -> Link {
    let (calls, waiting) = mpsc::channel(WAITING_CALLS_MAX);
    let address = target.address.clone();
    runtime.spawn(connection::run(target, waiting));
    Link { address, calls }
}

fn is_among(nodes: &[Arc<Link>], address: &str) -> bool {
    nodes.iter().any(|node| node.address == address)
}

/// The address in a `not_leader`, if there is one.
fn leader_of(error: &Error) -> Option<String> {
    let leader = error.details.get("leader")?;
    let host = leader.get("host")?.as_str()?;
    let port = u16::try_from(leader.get("port")?.as_u64()?).ok()?;
    // Only an IPv6 address has colons, and only with brackets can a port stand behind it.
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// The way of one request, or of a pipeline, to a node that takes it.
pub(super) struct Search<'a> {
    nodes: &'a Nodes,
    route: Route,
    /// The node whose turn it is.
    pub node: Arc<Link>,
    /// Nodes asked since the last pause, so that two that name each other don't go on for ever.
    asked: Vec<Arc<Link>>,
    /// Whether one of them answered: a pause helps only where somebody is.
    answered: bool,
    pause: Duration,
    /// When the first answer came: patience runs from then on.
    looking_since: Option<Instant>,
    /// When the call has to end at the latest.
    until: Instant,
    /// Whether a connection was lost already.
    lost: bool,
}

impl<'a> Search<'a> {
    pub fn new(nodes: &'a Nodes, route: Route, until: Instant) -> Search<'a> {
        let node = nodes.start(route);
        Search {
            nodes,
            route,
            node,
            asked: Vec::new(),
            answered: false,
            pause: PAUSE_FIRST,
            looking_since: None,
            until,
            lost: false,
        }
    }

    /// Whether what failed like this did not happen, and may succeed elsewhere or over a new connection.
    pub fn may_help(&self, error: &Error) -> bool {
        let elsewhere = || {
            let code = error.code();
            let codes = [Code::NotLeader, Code::NoLeader, Code::NoQuorum, Code::ClockSkew];
            // A node that reads its directory says `starting` to all who ask.
            code == Some(Code::Starting)
                || (self.route == Route::Leader && code.is_some_and(|code| codes.contains(&code)))
        };
        error.outcome == Outcome::NotApplied
            && match error.code.as_str() {
                NOT_CONNECTED => true,
                CONNECTION_LOST => !self.lost || self.is_silent(),
                _ => elsewhere(),
            }
    }

    /// Whether its node was left.
    pub fn is_silent(&self) -> bool {
        self.nodes.silent.has(&self.node.address)
    }

    /// Turns to the next node, behind a pause where all were asked. False at the
    /// end of patience or of the call's time, and where no node can be reached.
    pub async fn go_on(&mut self, error: &Error) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        if error.code == CONNECTION_LOST && !self.is_silent() {
            // The node may be there: once more, over a new connection.
            self.lost = true;
            return true;
        }
        let is_there = ![NOT_CONNECTED, CONNECTION_LOST].contains(&error.code.as_str());
        if is_there && self.patience().is_none() {
            return false;
        }
        self.answered |= is_there;
        self.asked.push(self.node.clone());
        let may_answer =
            |address: &String| !is_among(&self.asked, address) && !self.nodes.silent.has(address);
        let named = leader_of(error).filter(may_answer);
        let next = named.or_else(|| self.nodes.other(self.route, &self.asked));
        // Whoever comes next begins there, or at the first address when all were asked.
        let to = next.as_ref().unwrap_or(&self.nodes.given[0].address);
        let node = if is_there {
            self.nodes.go(self.route, &self.node, to)
        } else {
            self.nodes.go(Route::Near, &self.node, to);
            self.nodes.go(Route::Leader, &self.node, to)
        };
        if next.is_none() {
            return self.answered && self.begin_again().await;
        }
        self.node = node;
        true
    }

    /// The time that is left, unless it is none; it begins to run when this is asked first.
    fn patience(&mut self) -> Option<Duration> {
        let elapsed = self.looking_since.get_or_insert_with(Instant::now).elapsed();
        let left = self.nodes.options.patience.checked_sub(elapsed)?;
        let left = left.min(self.until.saturating_duration_since(Instant::now()));
        Some(left).filter(|left| !left.is_zero())
    }

    /// Waits, and forgets who was asked. False where no time is left.
    async fn begin_again(&mut self) -> bool {
        let Some(left) = self.patience() else { return false };
        // Behind the pause there has to be time for an answer.
        if self.until.saturating_duration_since(Instant::now()) <= self.pause {
            return false;
        }
        sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.asked.clear();
        self.answered = false;
        self.node = self.nodes.start(self.route);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_leaders_address_is_read_from_the_error() {
        let named = |leader: serde_json::Value| {
            let fields = json!({"code": "not_leader", "message": "m", "retryable": true,
                "outcome": "not_applied", "leader": leader});
            leader_of(&Error::from_reply(fields.as_object().cloned().unwrap()).unwrap())
        };
        assert_eq!(named(json!({"host": "h", "port": 1})).as_deref(), Some("h:1"));
        assert_eq!(named(json!({"host": "::1", "port": 9000})).as_deref(), Some("[::1]:9000"));
        for none in [json!(null), json!({"host": "h"}), json!({"host": "h", "port": 70_000}), json!("h:1")] {
            assert_eq!(named(none), None);
        }
    }
}
