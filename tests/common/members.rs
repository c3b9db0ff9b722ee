//! Clusters whose members change while they run.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::Cluster;
use super::network::Id;

/// Longer than a node takes to give a change up.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(12);

impl Cluster {
    /// Empties a node's directory: from its next start on it is new.
    pub fn wipe(&mut self, id: Id) {
        assert!(!self.nodes.contains_key(&id), "node {id} runs");
        let directory = self.directory(id).to_path_buf();
        std::fs::remove_dir_all(&directory).expect("its directory is there");
        std::fs::create_dir(&directory).expect("its parent is there");
        self.newcomers.insert(id, self.ids());
    }

    /// A spare node, started on its empty directory, shall be a member: see `wait_for_members`.
    pub fn bring_in(&mut self, id: Id) {
        self.newcomers.insert(id, self.ids());
        self.spare.remove(&id);
        self.restart(id);
    }

    /// A node shall be a member no more, and goes on: see `wait_for_members`.
    pub fn leave_out(&mut self, id: Id) {
        self.spare.insert(id);
    }

    /// A node more, that votes when this returns.
    pub fn add(&mut self, id: Id) {
        self.bring_in(id);
        self.wait_for_members();
    }

    /// A node less, whose process is ended, and which may come again with an empty directory.
    pub fn remove(&mut self, id: Id) {
        self.leave_out(id);
        self.wait_for_members();
        self.retire(id);
    }

    /// Ends a removed node, if it runs, and empties its directory.
    pub fn retire(&mut self, id: Id) {
        if self.nodes.contains_key(&id) {
            self.kill(id);
        }
        self.wipe(id);
    }

    /// Starts a node that may have been removed and know it: then it says so, and ends.
    pub fn restart_unless_removed(&mut self, id: Id) {
        match self.options(id).try_start() {
            Ok(node) => drop(self.nodes.insert(id, node)),
            Err((status, log)) => {
                let knows = log.contains("the data directory belongs to a cluster of nodes");
                assert!(self.spare.contains(&id) && knows && status.code() == Some(1), "node {id}: {log}");
            }
        }
    }

    /// The request that adds a node.
    pub fn add_member(&self, id: Id) -> Value {
        let address = self.network.address(id);
        json!({"op": "add_member", "node_id": id, "host": address.ip().to_string(), "port": address.port()})
    }

    /// Asks whoever leads for one of the changes that are still wanted, if any, and waits no
    /// longer than `timeout` for what becomes of it. Says whether nothing is left to do.
    pub fn ask_for_members(&self, timeout: Duration) -> bool {
        let Some(leader) = self.leader_among(&self.running()) else { return false };
        let Some(view) = self.view(leader) else { return false };
        let (listed, wanted) = (members(&view), BTreeSet::from_iter(self.ids()));
        let request = if let Some(new) = wanted.difference(&listed).next() {
            self.add_member(*new)
        } else if let Some(old) = listed.difference(&wanted).next() {
            json!({"op": "remove_member", "node_id": old})
        } else {
            return is_settled(&view);
        };
        if let Ok(reply) = self.call_within(leader, &request, timeout) {
            let error = &reply["error"];
            let message = error["message"].as_str().unwrap_or_default();
            // What was asked before may have come about meanwhile.
            let is_final = error["code"] == "bad_request" && !message.contains("is no member");
            assert!(!is_final, "{request} → {reply}\n{}", self.describe());
        }
        false
    }

    /// Waits until the members are those that they shall be, all of them vote, and as many
    /// may fail as of so many nodes may.
    pub fn wait_for_members(&self) {
        let wanted = self.ids();
        self.wait_until(&format!("the members are {wanted:?}"), |cluster| {
            cluster.ask_for_members(CHANGE_TIMEOUT)
        });
    }

    /// The nodes of which any one may fail, as the leader says.
    pub fn may_fail(&self) -> Vec<Id> {
        let view = self.leader().and_then(|leader| self.view(leader)).unwrap_or_default();
        ids(&view["may_fail"])
    }

    /// Waits until a node says that a majority is out of its reach.
    pub fn wait_until_alone(&self, id: Id) {
        let write = json!({"op": "set", "key": "is a majority there", "value": id});
        self.wait_until_refused(id, &write, "no_quorum");
        let error = self.refused(id, &write);
        assert_eq!((&error["code"], &error["outcome"]), (&json!("no_quorum"), &json!("not_applied")));
    }

    /// `promote` with `force`: this node alone votes from then on, and serves when this returns.
    pub fn force(&self, id: Id) {
        let before = self.epoch(id).expect("it answers");
        let reply = self.call(id, &json!({"op": "promote", "force": true})).expect("it answers");
        assert_eq!((&reply["ok"], &reply["leader"]), (&json!(true), &json!(id)), "{reply}");
        self.wait_until("it has begun anew", |cluster| cluster.epoch(id) == Some(before + 1));
        assert_eq!(self.wait_for_leader_among(&[id]), id);
    }

    /// How often the voters were set by force, as a node says.
    pub fn epoch(&self, id: Id) -> Option<u64> {
        self.view(id)?["epoch"].as_u64()
    }
}

fn ids(of: &Value) -> Vec<Id> {
    of.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// Who is a member as this node says.
pub fn members(view: &Value) -> BTreeSet<Id> {
    let members = view["members"].as_array().into_iter().flatten();
    members.filter_map(|member| member["node_id"].as_u64()).collect()
}

/// Those that vote.
pub fn voters(view: &Value) -> BTreeSet<Id> {
    let members = view["members"].as_array().into_iter().flatten();
    members.filter(|member| member["votes"] == true).filter_map(|member| member["node_id"].as_u64()).collect()
}

/// Whether all members vote and are there, and no change is under way.
fn is_settled(view: &Value) -> bool {
    let (members, may_fail) = (members(view), ids(&view["may_fail"]));
    let (tolerates, is_right) = match members.len() {
        1 => (0, may_fail.is_empty()),
        // All but the one that hosts the witness.
        2 => (0, may_fail.len() == 1 && view["witness"].as_u64().is_some_and(|host| host != may_fail[0])),
        count => ((count - 1) / 2, BTreeSet::from_iter(may_fail) == members && view["witness"].is_null()),
    };
    voters(view) == members && view["tolerates"] == tolerates && is_right
}
