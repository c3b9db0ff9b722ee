//! What a request waits for on a member of a cluster, before it is dispatched.
//!
//! | request | leader | replica |
//! |---|---|---|
//! | unconditional write | goes at once | `not_leader` |
//! | conditional write, since its refusal is a read | waits for a round | `not_leader` |
//! | read, `linearizable` | waits for a round | `not_leader` |
//! | read, `max_staleness_ms` | waits for a round | waits until it is so fresh |
//! | read, `local` | goes at once | goes at once |
//!
//! A read that doesn't say is linearizable on a leader and local on a replica. On a
//! connection that this node has answered as a primary it stays linearizable: a
//! client that asked a primary must not get a replica's old values without a word
//! because leadership went elsewhere meanwhile.
//!
//! What came in one read of the socket shares one round; requests keep their
//! order, so that what comes behind one that waits waits with it.

use std::collections::VecDeque;

use datastore::engine::{Condition, Version};
use datastore::error::Error;
use datastore::messaging::{Consistency, Operation};
use datastore::replication::raft::Role;

use crate::cluster::Cluster;

/// What a request waits for.
pub(crate) enum Freshness {
    /// Nothing.
    AsItIs,
    /// A round; with a figure a replica may answer that is at most so old, in milliseconds.
    Round(Option<u64>),
    /// In dynamo mode: that this write is here.
    Version(Version),
    /// This node can't answer it.
    Refused(Error),
}

/// What this request waits for. `asked_primary`: whether the connection was
/// answered as by a primary, before or now.
pub(crate) fn freshness(cluster: &Cluster, operation: &Operation, asked_primary: &mut bool) -> Freshness {
    let freshness = of(cluster, operation, *asked_primary);
    *asked_primary |= cluster.serves_as_primary() && !matches!(freshness, Freshness::Refused(_));
    freshness
}

fn of(cluster: &Cluster, operation: &Operation, asked_primary: bool) -> Freshness {
    match operation {
        Operation::Set { condition, .. }
        | Operation::AddVector { condition, .. }
        | Operation::Delete { condition, .. } => write(cluster, *condition),
        Operation::BulkSet { .. } | Operation::BulkDelete { .. } => write(cluster, Condition::None),
        Operation::Get { consistency, .. }
        | Operation::GetVector { consistency, .. }
        | Operation::BulkGet { consistency, .. }
        | Operation::SearchByValue { consistency, .. }
        | Operation::SearchText { consistency, .. }
        | Operation::VectorSearch { consistency, .. }
        | Operation::Scan { consistency, .. }
        | Operation::Count { consistency, .. } => read(cluster, *consistency, asked_primary),
        _ => Freshness::AsItIs,
    }
}

fn write(cluster: &Cluster, condition: Condition) -> Freshness {
    if !cluster.serves_as_primary() {
        Freshness::Refused(cluster.refusal())
    } else if condition == Condition::None {
        Freshness::AsItIs
    } else {
        Freshness::Round(None)
    }
}

fn read(cluster: &Cluster, consistency: Consistency, asked_primary: bool) -> Freshness {
    let consistency = match consistency {
        Consistency::Default if cluster.is_replica() && !asked_primary => Consistency::Local,
        Consistency::Default => Consistency::Linearizable,
        said => said,
    };
    match consistency {
        // A node that was never taken in has nothing, and must not say that nothing exists.
        Consistency::Local if cluster.membership_is_known() => Freshness::AsItIs,
        Consistency::MaxStalenessMs(most) => Freshness::Round(Some(most)),
        Consistency::Linearizable if cluster.role().role == Role::Leader => Freshness::Round(None),
        _ => Freshness::Refused(cluster.refusal()),
    }
}

/// The rounds that a connection has asked for, in their order.
#[derive(Default)]
pub(crate) struct Rounds {
    asked: u64,
    /// Those that queued requests wait for; `None`: under way.
    open: VecDeque<(u64, Option<Result<(), Error>>)>,
}

impl Rounds {
    /// The number of the round that is asked for next.
    pub(crate) fn next(&self) -> u64 {
        self.asked + 1
    }

    /// It is asked for.
    pub(crate) fn begin(&mut self) -> u64 {
        self.asked += 1;
        self.open.push_back((self.asked, None));
        self.asked
    }

    /// It is done, or can't be.
    pub(crate) fn done(&mut self, round: u64, ready: Result<(), Error>) {
        if let Some((_, state)) = self.open.iter_mut().find(|(number, _)| *number == round) {
            *state = Some(ready);
        }
    }

    /// What became of a round; `None`: it is under way. Earlier ones are forgotten:
    /// requests ask in their order.
    pub(crate) fn outcome(&mut self, round: u64) -> Option<Result<(), Error>> {
        while self.open.front().is_some_and(|(number, _)| *number < round) {
            self.open.pop_front();
        }
        self.open.front().filter(|(number, _)| *number == round)?.1.clone()
    }
}
