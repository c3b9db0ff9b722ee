//! Before a node is added: whether one waits at that address, on an empty directory.
//!
//! It is greeted as by a member that doesn't adopt it, and answers who it is. So neither a
//! wrong address nor a node that was forgotten to be started becomes a member, and a node
//! on its own doesn't begin anew for nobody.

use std::time::{Duration, Instant};

use datastore::error::{Code, Error};
use datastore::messaging::peer_hello::{Answer, hello_line, read_answer};
use datastore::persistence::{Member, NodeUuid};
use datastore::replication::handshake::{Hello, Lane, Own, PROTOCOL_MEMBERS};
use datastore::replication::reconfiguration::add;

use crate::cluster::Cluster;
use crate::peer_greeting::own;
use crate::peer_thread::BlockingPeer;
use crate::replication_messages::Wish;

/// It is looked for no longer than this, whatever a request may take.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// Who asks.
pub(crate) struct Asker {
    node_id: u64,
    node: NodeUuid,
    boot: u64,
    protocol: (u32, u32),
    /// Its cluster; `None` of a node on its own.
    cluster: Option<String>,
    epochs: Vec<String>,
    configuration: u64,
    patience: Duration,
}

impl Asker {
    /// A node on its own.
    pub(crate) fn alone(
        node_id: u64,
        node: NodeUuid,
        boot: u64,
        protocol: (u32, u32),
        request_timeout_ms: u64,
    ) -> Asker {
        let patience = patience(request_timeout_ms);
        Asker { node_id, node, boot, protocol, cluster: None, epochs: Vec::new(), configuration: 0, patience }
    }

    /// A member; `None` if it isn't any yet.
    pub(crate) fn member(cluster: &Cluster, request_timeout_ms: u64) -> Option<Asker> {
        let Own { node_id, node, membership, protocol, .. } = own(cluster);
        let membership = membership?;
        Some(Asker {
            node_id,
            node,
            boot: cluster.boot,
            protocol,
            cluster: Some(membership.cluster),
            epochs: membership.epochs,
            configuration: membership.configuration.index,
            patience: patience(request_timeout_ms),
        })
    }

    /// Looks for it, on a thread that may wait.
    pub(crate) fn look_for(&self, newcomer: &Member) -> Result<(), Error> {
        let (began, address) = (Instant::now(), (newcomer.host.clone(), newcomer.port));
        let given_up = || began.elapsed() >= self.patience;
        let greeted = BlockingPeer::greet(&address, &hello_line(&self.hello(newcomer.node_id)), &given_up);
        let found = match greeted {
            Err(error) => Err(error.to_string()),
            Ok((_, line)) => self.judge(newcomer.node_id, read_answer(&line)),
        };
        let Member { node_id, host, port, .. } = newcomer;
        let found =
            found.and_then(|()| if given_up() { Err("it took too long".to_string()) } else { Ok(()) });
        found.map_err(|reason| {
            let message = format!(
                "nothing was changed: no node {node_id} waits at {host}:{port}: {reason}; start it there first, on an \
                 empty directory, with --role secondary and --peers that names this node"
            );
            Error::new(Code::BadRequest, message)
        })
    }

    fn hello(&self, to: u64) -> Hello {
        Hello {
            protocol: self.protocol,
            lane: Lane::Heartbeat,
            // A node that waits asks only whether there is one.
            cluster: Some(self.cluster.clone().unwrap_or_else(|| "0".repeat(32))),
            epoch: self.epochs.len() as u64,
            epochs: self.epochs.clone(),
            configuration: self.configuration,
            node_id: self.node_id,
            node: self.node,
            boot: self.boot,
            to,
            in_doubt: false,
            advertise: None,
            membership: None,
        }
    }

    fn judge(&self, node_id: u64, answer: Result<Answer, String>) -> Result<(), String> {
        let welcome = match answer? {
            Answer::Refused { message, .. } => return Err(message),
            Answer::Welcome(welcome) => welcome,
        };
        // One that was adopted already, while who led then lost its office, only needs the entry.
        let waits = welcome.cluster.is_none() || welcome.cluster == self.cluster;
        match (welcome.node_id == node_id, waits) {
            (false, _) => Err(format!("node {} is there", welcome.node_id)),
            (true, false) => Err("it belongs to another cluster".to_string()),
            (true, true) => Ok(()),
        }
    }
}

fn patience(request_timeout_ms: u64) -> Duration {
    LOOK_MAX.min(Duration::from_millis(request_timeout_ms) / 2)
}

/// Whether a member that is asked for this change has to look for the node first: only who leads
/// decides, and what is refused or fulfilled by what is known needs nobody at the other end.
pub(crate) fn is_to_be_looked_for<'a>(cluster: &Cluster, wish: &'a Wish) -> Option<&'a Member> {
    let Wish::Add(member) = wish else { return None };
    let known = cluster.membership().filter(|_| cluster.serves_as_primary())?.configuration;
    let speaks_earlier = cluster.protocol.1 < PROTOCOL_MEMBERS
        || cluster.links.speaks_earlier_than(PROTOCOL_MEMBERS).is_some();
    if speaks_earlier {
        return None;
    }
    matches!(add(&known, member.clone()), Ok(Some(_))).then_some(member)
}

#[cfg(test)]
mod tests {
    use datastore::replication::handshake::Welcome;

    use super::*;

    fn asker(cluster: Option<&str>) -> Asker {
        let mut asker = Asker::alone(1, NodeUuid([1; 16]), 7, (1, 4), 10_000);
        asker.cluster = cluster.map(String::from);
        asker
    }

    fn welcome(node_id: u64, cluster: Option<&str>) -> Result<Answer, String> {
        Ok(Answer::Welcome(Welcome {
            protocol: 4,
            cluster: cluster.map(String::from),
            epochs: Vec::new(),
            lags: false,
            node_id,
            node: NodeUuid([2; 16]),
            boot: 8,
            in_doubt: false,
            advertise: None,
        }))
    }

    #[test]
    fn only_a_node_of_that_number_that_is_nobodys_or_ours_is_taken() {
        for (ours, theirs, node_id, is_taken) in [
            (None, None, 2, true),
            (Some("a"), None, 2, true),
            (Some("a"), Some("a"), 2, true),
            (Some("a"), Some("b"), 2, false),
            (None, Some("b"), 2, false),
            (Some("a"), None, 3, false),
        ] {
            let judged = asker(ours).judge(2, welcome(node_id, theirs));
            assert_eq!(judged.is_ok(), is_taken, "{ours:?} {theirs:?} {node_id}: {judged:?}");
        }
        assert!(asker(None).judge(2, Err("no JSON".into())).is_err());
    }

    #[test]
    fn a_short_time_for_requests_bounds_the_look() {
        assert_eq!((patience(500), patience(60_000)), (Duration::from_millis(250), LOOK_MAX));
    }
}
