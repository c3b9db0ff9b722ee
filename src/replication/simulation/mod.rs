//! A cluster in one thread: the real cores over a virtual clock, network and disk.
//!
//! ```text
//!   clients ─► connection ─► queue ─► Slice ─► queue ─► Appends ─► Replica ─► Log on a disk in memory
//!   checker ◄── answers ◄──────────── Slice ◄─ queue ◄─ Notices ◄─────┘  ▲
//!                                                                network ┘
//! ```
//!
//! Real are the slices, the meeting of multi-key writes, offices, the replica, the
//! log and recovery; simulated are what connects them (`clients.rs`, `shards.rs`,
//! `log_writer.rs`, which do what actors do), the clock, the network (`outside.rs`)
//! and snapshots (`snapshots.rs`). Everything that happens stands in one schedule,
//! by time and order. A queue keeps its order and delays at will.
//!
//! All chance comes from one seed, so that a failure is replayed by its number:
//! `DATASTORE_SIMULATION_SEED=7 cargo test -p datastore --lib simulation`.
//! For hours: `utilities/simulate.sh`.
//!
//! What can go wrong: messages are lost, late, doubled and out of order; nodes
//! are parted, in both directions or in one; nodes crash and lose what was not
//! synced; a sync takes seconds, or fails and is done again; a disk takes nothing for a while; a node stops for
//! seconds and goes on as if nothing had happened; a shard lags behind the others;
//! leadership is moved on purpose. What must hold nevertheless is in `checker.rs`.
//!
//! Disks are set back to older copies of themselves (`older_copies.rs`), as long as each
//! committed entry is left on some voter's disk: more isn't promised.
//!
//! Members change, too (`members.rs`, `operator.rs`): nodes are added, removed, and
//! replaced after their disks were lost; who was removed goes on with what it has.
//! Voters are set by force (`force.rs`) in directed tests only.

mod checker;
mod clients;
mod cluster;
mod disk;
mod faults;
mod force;
#[cfg(test)]
mod force_tests;
mod health;
#[cfg(test)]
mod health_tests;
mod history;
mod log_writer;
mod members;
#[cfg(test)]
mod members_tests;
mod node;
mod older_copies;
#[cfg(test)]
mod older_copies_tests;
mod operator;
mod outside;
mod probes;
mod shards;
mod snapshots;
mod tests;
mod witness_mistakes;
mod witness_tests;

pub use cluster::{Cluster, Report};

use crate::replication::raft::Mistake;

/// Bugs that the simulation must catch: each is a mistake that a store like this
/// one has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Members change whoever answers.
    ChangesBlindly,
    /// A write is durable as soon as it is ordered.
    PersistedBeforeSync,
    /// A follower's promises leave before what they promise is durable.
    PromisesBeforeSync,
    /// The vote is forgotten in a crash.
    VoteNotPersisted,
    /// The term is forgotten in a crash.
    TermNotPersisted,
    /// A leader answers reads from what it has.
    ReadWithoutRound,
    /// A read is answered before its index is applied.
    ReadBeforeApply,
    /// A replaced suffix stays in the log on the disk.
    ForgottenTruncation,
    /// A write is acknowledged when it is proposed.
    AcknowledgedAtPropose,
    /// A write is acknowledged when it is on the leader's own disk.
    AcknowledgedAtOwnSync,
    /// A write is acknowledged by its index alone, whatever stands there.
    AcknowledgedByIndex,
    /// A restart applies all that is in the log.
    TailAppliedAtRestart,
    /// A refused proposal is in the log all the same.
    RefusedButProposed,
    /// What was looked at in an earlier office is proposed in this one.
    OfficeNumberIgnored,
    /// An office begins with the election, and conditions rely on it: what earlier
    /// leaders committed may not be applied yet.
    OfficeAtElection,
    /// A condition is looked at while writes of its key are in flight.
    ConditionWithoutWaiting,
    /// A condition's refusal rests on what this node has, and it may lead no more.
    RefusalWithoutRound,
    /// Writes of an office that is lost are said not to have happened.
    LostAnsweredNotApplied,
    /// Replay passes over a write at the index of the key's newest, whatever the ordinals.
    GuardByIndexAlone,
    /// A snapshot takes the state's place before the entries that were handed over ahead of it.
    InstallOvertakes,
    /// A part of a multi-key write goes to the log without the others.
    PartAlone,
    /// Parts whose others were refused are not let go.
    PartsNotLetGo,
    /// What gathered for the log is proposed although its office has ended.
    GroupOutlivesOffice,
    /// A snapshot is taken for the state behind E, although entries behind S are in it in part.
    WalkNotReplayed,
    /// A member that has lost its disk is let in, and votes, and its witness with it.
    WipedVotes,
    /// A witness campaigns, and says that it leads.
    WitnessCampaigns,
    /// A witness acknowledges what its host hasn't written yet.
    WitnessBeforeDisk,
    /// Two sides that were forced, each without the other, talk to each other.
    ForcedTwice,
    /// A copy is not known for one.
    CopyNotKnown,
    /// One that the replica makes; others of those are found by `raft/tests_of_doubt.rs`.
    OfReplica(Mistake),
}

impl Mutant {
    fn of_replica(self) -> Option<Mistake> {
        if let Mutant::OfReplica(mistake) = self { Some(mistake) } else { None }
    }
}
