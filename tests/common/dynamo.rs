//! Clusters in which every node takes writes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::network::Id;
use super::{Cluster, PATIENCE, signal};

/// What makes a node one of dynamo mode.
const MODE: [&str; 4] = ["--mode", "dynamo", "--role", "primary"];

/// All keys of a node, each with its item of `scan`.
pub type Contents = BTreeMap<String, Value>;

/// The parts of a version, which compare as the nodes do: hybrid time, then origin.
pub fn version(text: &Value) -> (u64, u32) {
    let parts = text.as_str().and_then(|text| text.split_once('.'));
    let (time, origin) = parts.unwrap_or_else(|| panic!("{text} is no version"));
    (time.parse().expect("a time"), origin.parse().expect("an origin"))
}

impl Cluster {
    /// So many nodes that name each other, all in contact.
    pub fn dynamo(count: u64, flags: &[&str]) -> Cluster {
        Cluster::dynamo_with_room(count, count, flags)
    }

    /// As `dynamo`, with room for more nodes, up to `total`: see `join`.
    pub fn dynamo_with_room(count: u64, total: u64, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepared(total, &with_mode(flags));
        cluster.founders = count;
        cluster.spare = (count + 1..=total).collect();
        cluster.restart_all();
        cluster.wait_for_contact(&cluster.ids());
        cluster
    }

    /// Flags of a node beside its mode's, from its next start on.
    pub fn set_dynamo_flags(&mut self, id: Id, flags: &[&str]) {
        self.set_flags(id, &with_mode(flags));
    }

    /// Starts a node whose flags name these, and no others.
    pub fn join(&mut self, id: Id, names: &[Id]) {
        self.newcomers.insert(id, names.to_vec());
        self.spare.remove(&id);
        self.restart(id);
    }

    /// As `join`, of many nodes at once.
    pub fn join_all(&mut self, ids: &[Id], names: &[Id]) {
        for id in ids {
            self.newcomers.insert(*id, names.to_vec());
            self.spare.remove(id);
        }
        self.restart_all();
    }

    /// Says each of these lines to a node, on a connection of its own, all in one go; gives the answers.
    pub fn lines_at(&self, id: Id, lines: &[Vec<u8>]) -> Vec<Value> {
        let dial = self.network.dial();
        let connect = |_: &Vec<u8>| {
            let socket = dial(self.network.address(id), PATIENCE).expect("it listens");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        };
        let mut sockets: Vec<TcpStream> = lines.iter().map(connect).collect();
        for (socket, line) in sockets.iter_mut().zip(lines) {
            socket.write_all(line).expect("it reads");
        }
        let answer = |socket: TcpStream| {
            let mut line = String::new();
            BufReader::new(socket).read_line(&mut line).expect("it answers");
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
        };
        sockets.into_iter().map(answer).collect()
    }

    /// Waits until each of these says that all of these serve.
    pub fn wait_for_contact(&self, ids: &[Id]) {
        self.wait_until(&format!("{ids:?} are in contact with each other"), |cluster| {
            ids.iter().all(|id| {
                let serving = cluster.view(*id).map(|view| in_state(&view, "serving"));
                serving.is_some_and(|serving| ids.iter().all(|other| serving.contains(other)))
            })
        });
    }

    /// Waits until a node says that it hears nothing of these.
    pub fn wait_until_unreachable(&self, id: Id, gone: &[Id]) {
        self.wait_until(&format!("node {id} hears nothing of {gone:?}"), |cluster| {
            let view = cluster.view(id).unwrap_or_default();
            let unreachable = in_state(&view, "unreachable");
            gone.iter().all(|other| unreachable.contains(other))
        });
    }

    /// A request to a node that must be `ok`.
    pub fn ok_at(&self, id: Id, request: &Value) -> Value {
        let reply = self.call(id, request).unwrap_or_else(|error| panic!("{request} at {id}: {error}"));
        assert_eq!(reply["ok"], true, "{request} at {id} → {reply}\n{}", self.describe());
        reply
    }

    /// What only dynamo mode says, of a node that must answer.
    pub fn dynamo_view(&self, id: Id) -> Value {
        self.view(id).unwrap_or_else(|| panic!("node {id} doesn't answer"))["dynamo"].clone()
    }

    /// Waits until this holds of what a node says.
    pub fn wait_for_view(&self, id: Id, what: &str, holds: impl Fn(&Value) -> bool) {
        self.wait_until(&format!("node {id}: {what}"), |cluster| {
            cluster.view(id).is_some_and(|view| holds(&view))
        });
    }

    /// Starts whoever doesn't run, wakes whoever is stopped, heals the network, and waits until
    /// all nodes hold the same and have had the same writes; gives what they hold.
    pub fn settle(&mut self) -> Contents {
        self.mend();
        self.settled_among(&self.ids())
    }

    /// Starts whoever doesn't run, wakes whoever is stopped, and heals the network.
    pub fn mend(&mut self) {
        self.heal();
        for id in std::mem::take(&mut self.stopped) {
            signal(self.nodes[&id].pid(), "CONT");
        }
        self.restart_all();
    }

    /// Waits until these hold the same and have had the same writes; gives what they hold.
    pub fn settled_among(&self, ids: &[Id]) -> Contents {
        let mut settled = None;
        self.wait_until(&format!("{ids:?} have had the same writes and hold the same"), |cluster| {
            settled = cluster.common_state(ids);
            settled.is_some()
        });
        settled.expect("it was waited for")
    }

    fn common_state(&self, ids: &[Id]) -> Option<Contents> {
        let mut states = ids.iter().map(|id| Some((self.view(*id)?["dynamo"]["streams"].clone(), *id)));
        let first = states.next()??.0;
        if !states.all(|state| state.is_some_and(|(streams, _)| streams == first)) {
            return None;
        }
        let mut contents = ids.iter().map(|id| self.contents(*id));
        let first = contents.next()??;
        contents.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    /// Waits until every one of these has compared its state with the others', at equal vectors,
    /// and found it the same, and holds that none ever found another one.
    pub fn wait_for_equal_states(&self, ids: &[Id]) {
        for id in ids {
            let before = self.dynamo_view(*id)["states_equal"].as_u64();
            // A comparison is made once for each vector: this is one more.
            self.ok_at(*id, &json!({"op": "set", "key": "compare", "value": id, "w": "all"}));
            self.wait_for_view(*id, "compares its state", |view| {
                view["dynamo"]["states_equal"].as_u64() > before
            });
        }
        ids.iter().for_each(|id| assert_eq!(self.differences(*id), 0, "{}", self.describe()));
    }

    /// How often a node found that a peer that had had the same writes held something else.
    pub fn differences(&self, id: Id) -> u64 {
        let stats = self.ok_at(id, &json!({"op": "stats", "section": "replication"}));
        stats["replication"]["state_differences"].as_u64().unwrap_or_else(|| panic!("{stats}"))
    }

    /// Whether a node runs, stopped or not.
    pub fn is_started(&self, id: Id) -> bool {
        self.nodes.contains_key(&id)
    }

    /// The tombstones that a node keeps.
    pub fn tombstones(&self, id: Id) -> u64 {
        self.dynamo_view(id)["tombstones"]["kept"].as_u64().expect("a number")
    }
}

fn with_mode<'f>(flags: &[&'f str]) -> Vec<&'f str> {
    MODE.into_iter().chain(flags.iter().copied()).collect()
}

/// The members that are in this state, as this node says.
fn in_state(view: &Value, state: &str) -> Vec<Id> {
    let members = view["members"].as_array().into_iter().flatten();
    members
        .filter(|member| member["state"] == state)
        .filter_map(|member| member["node_id"].as_u64())
        .collect()
}
