//! What `cluster` and `stats` say in words of a cluster of dynamo mode: what asks for a person.

use std::sync::atomic::Ordering;

use datastore::limits::MEMBERS_MAX;
use datastore::persistence::NodeUuid;
use datastore::query::{Alarm, utc};
use datastore::replication::dynamo::clock::SKEW_MAX_MS;
use datastore::replication::dynamo::{Ahead, Fork, beyond_most};
use datastore::replication::message::NodeId;

use crate::dynamo_cluster::{DynamoCluster, DynamoView};

/// All that is wrong now, as far as this node knows.
pub(crate) fn alarms(cluster: &DynamoCluster, view: &DynamoView) -> Vec<Alarm> {
    let (me, now_ms) = (cluster.place.node_id, cluster.now_ms());
    let ahead = view.ahead.iter().map(|ahead| clock_ahead(me, ahead, now_ms));
    let forks = view.forks.iter().map(forked).chain(view.unknown_members.iter().map(unknown_member));
    excess_writes(cluster).into_iter().chain(too_many_members(view)).chain(ahead).chain(forks).collect()
}

/// This directory was put back to an older copy, and has heard an evicted node before it heard a member.
fn excess_writes(cluster: &DynamoCluster) -> Option<Alarm> {
    let me = cluster.place.node_id;
    let has_excess = cluster.has_excess.load(Ordering::Relaxed);
    has_excess.then(|| Alarm::of("excess_writes", me, excess_message(me)))
}

/// Why such a node takes no writes.
pub(crate) fn excess_message(me: NodeId) -> String {
    format!(
        "node {me} has writes of an evicted node that count for no member: its directory was put back to an older \
         copy, and it heard the evicted node before the others. No member takes them, or a state of node {me}, and \
         it takes no writes. Stop the evicted node, `evict` node {me} at another member, and start it on an empty \
         directory; reads go on"
    )
}

/// A node's stamps are ahead of time: it ran with a clock that was.
fn clock_ahead(me: NodeId, ahead: &Ahead, now_ms: u64) -> Alarm {
    let Ahead { node_id, stamped_ms } = *ahead;
    let until = utc(stamped_ms.saturating_sub(SKEW_MAX_MS));
    let seconds = stamped_ms.saturating_sub(now_ms).div_ceil(1_000);
    let by_whom = if node_id == me { "the other nodes hold it" } else { "this node holds it" };
    let message = format!(
        "what node {node_id} writes is stamped {} or later, {seconds} s ahead of this node's clock, since its clock is or \
         was ahead: {by_whom} back until {until}, and it then wins over what others have written meanwhile. Correct its \
         clock, and write to other nodes until then; or export what it wrote, `evict` it, start it empty, and import",
        utc(stamped_ms)
    );
    Alarm::of("clock_ahead", node_id, message)
}

/// Another member has let a node in by its flags that no member has admitted: two that joined at once, say.
fn unknown_member((node_id, directory): &(NodeId, NodeUuid)) -> Alarm {
    let message = format!(
        "another member takes directory {directory} for node {node_id}, which is no member here: its flags name node \
         {node_id}, and nobody has admitted that directory. What it writes doesn't come here, and no delete is \
         forgotten meanwhile: export what it has, `evict` node {node_id} at the member that it reaches, and start it \
         on an empty directory"
    );
    Alarm::of("unknown_member", *node_id, message)
}

/// Parted nodes have each admitted as many as there were places.
fn too_many_members(view: &DynamoView) -> Option<Alarm> {
    let beyond = beyond_most(&view.members);
    if beyond == 0 {
        return None;
    }
    let node_ids = view.members.node_ids();
    let message = format!(
        "the cluster has {} members, {node_ids:?}, and may have {MEMBERS_MAX}: nodes that didn't hear each other have \
         admitted them. All of them stay, and nobody more is admitted: `evict` {beyond} of them",
        node_ids.len()
    );
    Some(Alarm { code: "too_many_members", node_id: None, message })
}

/// A place of a stream was given to two entries.
fn forked(fork: &Fork) -> Alarm {
    let of_node = fork.node_id.map_or("a node that nobody knows".into(), |node_id| format!("node {node_id}"));
    let message = format!(
        "stream {} of {of_node} has forked: its directory was set back to an older state, and it took writes before it \
         had heard the others. Nodes have other entries in the same places of it; no delete is forgotten while that is \
         so. It normally ends by itself within seconds: whoever has the later entries takes over what the others have. \
         If it stays, `evict` that node, start it on an empty directory, and it joins anew",
        fork.origin
    );
    Alarm { code: "forked_stream", node_id: fork.node_id, message }
}

#[cfg(test)]
mod tests {
    use datastore::replication::dynamo::Members;

    use super::*;

    #[test]
    fn too_many_members_are_told_with_how_many_are_to_go() {
        let view = |count: u64| {
            let mut members = Members::default();
            (1..=count).for_each(|id| members.named(id, "h", 1));
            DynamoView { members, ..DynamoView::default() }
        };
        assert_eq!(too_many_members(&view(9)), None);
        let alarm = too_many_members(&view(11)).expect("an alarm");
        assert_eq!((alarm.code, alarm.node_id), ("too_many_members", None));
        assert!(alarm.message.contains("has 11 members") && alarm.message.contains("`evict` 2"), "{alarm:?}");
    }

    #[test]
    fn a_forked_stream_is_told_with_whose_it_is_and_the_way_out() {
        let alarm = forked(&Fork { origin: 7, node_id: Some(3) });
        assert_eq!((alarm.code, alarm.node_id), ("forked_stream", Some(3)));
        assert!(alarm.message.contains("node 3") && alarm.message.contains("`evict`"), "{alarm:?}");
    }

    #[test]
    fn stamps_that_are_ahead_are_told_with_the_time_until_when_they_wait() {
        let ahead = Ahead { node_id: 3, stamped_ms: 1_795_941_000_000 };
        let alarm = clock_ahead(1, &ahead, ahead.stamped_ms - 3_600_000);
        assert_eq!((alarm.code, alarm.node_id), ("clock_ahead", Some(3)));
        for words in
            ["2026-11-29T08:30:00.000Z", "until 2026-11-29T08:29:59.500Z", "3600 s ahead", "this node holds"]
        {
            assert!(alarm.message.contains(words), "{words}: {alarm:?}");
        }
        assert!(clock_ahead(3, &ahead, 0).message.contains("the other nodes hold it back"));
    }
}
