//! What `cluster` and `stats` say in words of a cluster of dynamo mode: what asks for a person.

use datastore::limits::MEMBERS_MAX;
use datastore::query::Alarm;
use datastore::replication::dynamo::{Fork, beyond_most};

use crate::dynamo_cluster::DynamoView;

/// All that is wrong now, as far as this node knows.
pub(crate) fn alarms(view: &DynamoView) -> Vec<Alarm> {
    too_many_members(view).into_iter().chain(view.forks.iter().map(forked)).collect()
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
        assert_eq!(alarms(&view(9)), []);
        let [alarm] = &alarms(&view(11))[..] else { panic!("one alarm") };
        assert_eq!((alarm.code, alarm.node_id), ("too_many_members", None));
        assert!(alarm.message.contains("has 11 members") && alarm.message.contains("`evict` 2"), "{alarm:?}");
    }

    #[test]
    fn a_forked_stream_is_told_with_whose_it_is_and_the_way_out() {
        let forks = vec![Fork { origin: 7, node_id: Some(3) }];
        let [alarm] = &alarms(&DynamoView { forks, ..DynamoView::default() })[..] else {
            panic!("one alarm")
        };
        assert_eq!((alarm.code, alarm.node_id), ("forked_stream", Some(3)));
        assert!(alarm.message.contains("node 3") && alarm.message.contains("`evict`"), "{alarm:?}");
    }
}
