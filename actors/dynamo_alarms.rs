//! What `cluster` and `stats` say in words of a cluster of dynamo mode: what asks for a person.

use datastore::limits::MEMBERS_MAX;
use datastore::query::Alarm;
use datastore::replication::dynamo::beyond_most;

use crate::dynamo_cluster::DynamoView;

/// All that is wrong now, as far as this node knows.
pub(crate) fn alarms(view: &DynamoView) -> Vec<Alarm> {
    too_many_members(view).into_iter().collect()
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
}
