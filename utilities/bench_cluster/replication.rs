//! How soon a replica shows what the primary has acknowledged.
//!
//! ```text
//! writer     set r = n ──► ok        a new n each millisecond
//!            │ sent       │ answered
//! watcher × 2             get r, local, again and again ──► n or more: shown
//! ```
//!
//! A write counts as shown when the answer to the first read that has it has been
//! read, so that the figures have a read and a pause more in them than the truth.
//! Without the pause the watchers alone would keep two cores busy, and the load
//! would not be light.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use datastore_utilities::bench::Marked;
use datastore_utilities::proof::Client;
use serde_json::json;

use crate::bench::Bench;
use crate::marks;
use crate::nodes::Nodes;
use crate::report::{Percentiles, Replication};
use crate::writes::MEMBERS;

/// Between the beginnings of two writes.
const WRITE_EVERY: Duration = Duration::from_millis(1);
/// Between two reads of a watcher; small beside the mark.
const READ_EVERY: Duration = Duration::from_micros(100);
/// A replica that doesn't show the last write in this time will not.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
const KEY: &str = "replicated";

/// When the write of this place was sent and answered.
struct Written {
    sent: Instant,
    answered: Instant,
}

/// Writes so often and watches all replicas.
pub fn measure(bench: &Bench, writes: usize) -> Result<Replication, String> {
    let nodes = Nodes::start(bench, &bench.node, MEMBERS, &[])?;
    let leader = nodes.wait_for_leader()?;
    of_nodes(bench, &nodes, leader, writes)
}

/// As [`measure`], of nodes that run: writes to one of them, and watches the others.
pub fn of_nodes(
    bench: &Bench,
    nodes: &Nodes<'_>,
    leader: usize,
    writes: usize,
) -> Result<Replication, String> {
    bench.rest([&nodes.members, &[]])?;
    let replicas: Vec<SocketAddr> =
        (0..MEMBERS).filter(|place| *place != leader).map(|place| nodes.members[place].address).collect();
    let is_over = AtomicBool::new(false);
    let (written, shown) = std::thread::scope(|scope| {
        let watchers: Vec<_> =
            replicas.iter().map(|address| scope.spawn(|| watch(*address, writes, &is_over))).collect();
        let written = write(bench, nodes.members[leader].address, writes);
        // Without all writes nobody sees the last one.
        is_over.store(written.is_err(), Ordering::Relaxed);
        let shown: Result<Vec<_>, String> = watchers
            .into_iter()
            .map(|watcher| watcher.join().unwrap_or_else(|_| Err("a watcher panicked".into())))
            .collect();
        (written, shown)
    });
    let (written, shown) = (written?, shown?);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let since = |began: &dyn Fn(&Written) -> Instant| {
        let pairs = shown.iter().flat_map(|shown| shown.iter().zip(&written));
        let latency =
            |(shown, written): (&Instant, &Written)| shown.saturating_duration_since(began(written));
        Percentiles::of(pairs.map(latency).map(milliseconds).collect())
    };
    let from_answer_ms = since(&|written| written.answered);
    let marked = Marked::new(from_answer_ms.median, marks::REPLICATION_MS);
    Ok(Replication {
        from_answer_ms,
        from_sending_ms: since(&|written| written.sent),
        answer_ms: Percentiles::of(
            written.iter().map(|written| milliseconds(written.answered - written.sent)).collect(),
        ),
        replicas: replicas.len(),
        marked,
    })
}

fn write(bench: &Bench, address: SocketAddr, writes: usize) -> Result<Vec<Written>, String> {
    let mut client = Client::connect(address).map_err(|error| format!("the primary: {error}"))?;
    let mut written = Vec::with_capacity(writes);
    let mut next = Instant::now();
    for number in 1..=writes {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        bench.check()?;
        let sent = Instant::now();
        client.ok(&json!({"op": "set", "key": KEY, "value": number}))?;
        written.push(Written { sent, answered: Instant::now() });
        // A write that took longer is not made up for: the load stays light.
        next = (next + WRITE_EVERY).max(Instant::now());
    }
    Ok(written)
}

/// When each write was shown, from the first to the last.
fn watch(address: SocketAddr, writes: usize, is_over: &AtomicBool) -> Result<Vec<Instant>, String> {
    let mut client = Client::connect(address).map_err(|error| format!("a replica: {error}"))?;
    let read = json!({"op": "get", "key": KEY, "consistency": "local"});
    let mut shown = Vec::with_capacity(writes);
    let mut last_change = Instant::now();
    while shown.len() < writes {
        let value = client.ok(&read)?["value"].as_u64().unwrap_or_default();
        let now = Instant::now();
        while shown.len() < usize::try_from(value).unwrap_or(usize::MAX).min(writes) {
            shown.push(now);
            last_change = now;
        }
        if is_over.load(Ordering::Relaxed) || now - last_change > SHOWN_WITHIN {
            return Err(format!("a replica showed {} of {writes} writes", shown.len()));
        }
        std::thread::sleep(READ_EVERY);
    }
    Ok(shown)
}
