//! What killing the leader costs: how long nothing is acknowledged, and whether
//! all that was acknowledged is there afterwards.
//!
//! ```text
//! writers   ok ok ok          ok ok ok ok ok   ok ok      each one request at a time
//! leader          ✗ kill                                  of another node from here on
//! killed                      start ──► caught up         then the next round
//!                  ◄── gap ──►
//! ```
//!
//! A writer follows the `leader` of a refusal, and goes to the next node when the
//! connection ends or nobody is known to lead. It writes each key once: one that
//! wasn't acknowledged is left alone, since nobody knows whether it is there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use datastore_utilities::bench::Marked;
use datastore_utilities::proof::Client;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::marks;
use crate::nodes::Nodes;
use crate::report::{Failover, Percentiles};

const WRITERS: usize = 4;
/// A node that answers nothing for so long is left for another.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Before another node is asked.
const RETRY_AFTER: Duration = Duration::from_millis(1);
/// Steady load before a kill.
const STEADY: Duration = Duration::from_millis(300);
/// Reads of a batch of the final check.
const CHECKED_AT_ONCE: usize = 500;

/// An acknowledged write: its number among its writer's, and when, from the start.
struct Acknowledged {
    number: u64,
    at: Duration,
}

/// A leader was killed, and was back with all its data.
struct Kill {
    at: Duration,
    caught_up_at: Duration,
    caught_up_in: Duration,
}

/// What writers and the killer share.
struct Shared {
    began: Instant,
    is_over: AtomicBool,
    acknowledged: AtomicU64,
}

/// Kills leaders so often under load. Of two nodes the one without the witness is
/// waited for, which comes to lead again by itself.
pub fn measure(bench: &Bench, members: usize, kills: usize) -> Result<Failover, String> {
    let mut nodes = Nodes::start(bench, &bench.node, members, &[])?;
    let addresses: Vec<SocketAddr> = nodes.members.iter().map(|member| member.address).collect();
    let shared =
        Shared { began: Instant::now(), is_over: AtomicBool::new(false), acknowledged: AtomicU64::new(0) };
    let (killed, written) = std::thread::scope(|scope| {
        let write = |writer| write(&addresses, writer, &shared);
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let killed: Result<Vec<Kill>, String> =
            (1..=kills).map(|number| kill(bench, &mut nodes, &shared, number)).collect();
        shared.is_over.store(true, Ordering::Relaxed);
        let written: Option<Vec<_>> = writers.into_iter().map(|writer| writer.join().ok()).collect();
        (killed, written)
    });
    let (killed, written) = (killed?, written.ok_or("a writer panicked")?);
    let lost = count_lost(bench, &nodes, &written)?;
    let mut times: Vec<Duration> = written.iter().flatten().map(|write| write.at).collect();
    times.sort_unstable();
    let gap_s = Percentiles::of(killed.iter().map(|kill| longest_gap(&times, kill).as_secs_f64()).collect());
    Ok(Failover {
        caught_up_s: Percentiles::of(killed.iter().map(|kill| kill.caught_up_in.as_secs_f64()).collect()),
        members,
        acknowledged: times.len() as u64,
        lost,
        gap_marked: Marked::new(gap_s.max, marks::FAILOVER_S),
        lost_marked: Marked::new(lost as f64, marks::LOST),
        gap_s,
    })
}

/// One round: kills the leader under load, and has it back.
fn kill(bench: &Bench, nodes: &mut Nodes, shared: &Shared, number: usize) -> Result<Kill, String> {
    bench.wait("a leader without which the others go on", || Ok(nodes.may_lose_leader().then_some(())))?;
    std::thread::sleep(STEADY);
    let next_write = |shared: &Shared| {
        let before = shared.acknowledged.load(Ordering::Relaxed);
        bench.wait("a write is acknowledged", || {
            Ok((shared.acknowledged.load(Ordering::Relaxed) > before).then_some(()))
        })
    };
    next_write(shared)?;
    let killed = nodes.wait_for_leader()?;
    let at = shared.began.elapsed();
    nodes.members[killed].kill()?;
    // From here on only another node can be the leader.
    let leader = nodes.wait_for_leader()?;
    next_write(shared)?;
    let acknowledged_at = shared.began.elapsed();
    nodes.members[killed].start_again()?;
    let started = Instant::now();
    bench.wait("the killed node has caught up", || {
        nodes.members[killed].check()?;
        let leader = nodes.leader().unwrap_or(leader);
        // It may lead again at once: then the others have caught up with it.
        Ok((leader == killed || nodes.has_caught_up(killed, leader)).then_some(()))
    })?;
    let caught_up_in = started.elapsed();
    eprintln!(
        "kill {number}: node {} killed, writes again after about {:.2} s, caught up in {:.2} s",
        killed + 1,
        (acknowledged_at - at).as_secs_f64(),
        caught_up_in.as_secs_f64()
    );
    Ok(Kill { at, caught_up_at: shared.began.elapsed(), caught_up_in })
}

/// The longest time between two acknowledgements that follow each other, of which
/// the second came after the kill and the first before the killed node was back.
fn longest_gap(times: &[Duration], kill: &Kill) -> Duration {
    let pairs = times.iter().zip(&times[1..]);
    let of_kill = pairs.filter(|(one, next)| **next > kill.at && **one < kill.caught_up_at);
    of_kill.map(|(one, next)| *next - *one).max().unwrap_or(Duration::MAX)
}

fn key(writer: usize, number: u64) -> String {
    format!("failover:{writer}:{number}")
}

/// One writer, until it is over.
fn write(addresses: &[SocketAddr], writer: usize, shared: &Shared) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    let mut place = writer % addresses.len();
    let mut client = None;
    for number in 1.. {
        if shared.is_over.load(Ordering::Relaxed) {
            break;
        }
        let request = json!({"op": "set", "key": key(writer, number), "value": number});
        let reply = connected(&mut client, addresses[place]).and_then(|client| {
            client.send([&request])?;
            client.receive()
        });
        match reply {
            Ok(reply) if reply["ok"] == true => {
                acknowledged.push(Acknowledged { number, at: shared.began.elapsed() });
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Ok(reply) => {
                let leader = leader_of(&reply, addresses);
                if leader == Some(place) || leader.is_none() {
                    std::thread::sleep(RETRY_AFTER);
                }
                place = leader.unwrap_or((place + 1) % addresses.len());
            }
            Err(_) => {
                std::thread::sleep(RETRY_AFTER);
                place = (place + 1) % addresses.len();
            }
        }
        client = None;
    }
    acknowledged
}

fn connected(client: &mut Option<Client>, address: SocketAddr) -> std::io::Result<&mut Client> {
    match client {
        Some(client) => Ok(client),
        None => Ok(client.insert(Client::connect_within(address, REPLY_TIMEOUT)?)),
    }
}

/// The node that a refusal names.
fn leader_of(reply: &Value, addresses: &[SocketAddr]) -> Option<usize> {
    let port = reply["error"]["leader"]["port"].as_u64()?;
    addresses.iter().position(|address| u64::from(address.port()) == port)
}

/// The leader's answers. It may hand over meanwhile, to a node that has just
/// come back.
fn ask_the_leader(nodes: &Nodes, requests: &[Value]) -> Result<Vec<Value>, String> {
    const ATTEMPTS_MAX: usize = 5;
    let mut failure = String::new();
    for _ in 0..ATTEMPTS_MAX {
        let leader = nodes.wait_for_leader()?;
        let mut client = Client::connect(nodes.members[leader].address).map_err(|error| error.to_string())?;
        match client.all_ok(requests) {
            Ok(replies) => return Ok(replies),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Reads every acknowledged key from the leader.
fn count_lost(bench: &Bench, nodes: &Nodes, written: &[Vec<Acknowledged>]) -> Result<u64, String> {
    let mut lost = 0;
    for (writer, written) in written.iter().enumerate() {
        for part in written.chunks(CHECKED_AT_ONCE) {
            bench.check()?;
            let read = |write: &Acknowledged| json!({"op": "get", "key": key(writer, write.number), "consistency": "linearizable"});
            let replies = ask_the_leader(nodes, &part.iter().map(read).collect::<Vec<Value>>())?;
            for (write, reply) in part.iter().zip(&replies) {
                if reply["value"] != write.number {
                    eprintln!("lost: {} was acknowledged and is {reply}", key(writer, write.number));
                    lost += 1;
                }
            }
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Kill, longest_gap};

    #[test]
    fn a_gap_belongs_to_the_kill_that_it_follows() {
        let ms = Duration::from_millis;
        let times = [0, 900, 1_000, 1_400, 1_401, 3_000].map(ms);
        let gap = |at, caught_up_at| {
            let kill = Kill { at: ms(at), caught_up_at: ms(caught_up_at), caught_up_in: Duration::ZERO };
            longest_gap(&times, &kill)
        };
        assert_eq!(gap(1_000, 1_401), ms(400));
        assert_eq!(gap(1_200, 1_300), ms(400));
        assert_eq!(gap(1_000, 2_000), ms(1_599));
        assert_eq!(gap(5_000, 6_000), Duration::MAX, "nothing was acknowledged any more");
    }
}
