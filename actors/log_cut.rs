//! How far a log is to be cut, and how far it was: a part may wait for peers that are being brought up to date.

use datastore::replication::message::NodeId;

use crate::wal_writer::Agreement;

/// Two indexes: up to each of them entries are cut, or are to be.
#[derive(Default)]
pub(crate) struct LogCut {
    /// This node needs no entry up to this one.
    wanted: u64,
    /// The disk thread was told to cut all entries up to this one.
    ordered: u64,
}

impl LogCut {
    /// The log needn't reach back beyond this entry for this node's own sake.
    pub(crate) fn wants(&mut self, through: u64) {
        self.wanted = self.wanted.max(through);
    }

    /// The last entry of those that are still to be cut, if there are any.
    pub(crate) fn waiting(&self) -> Option<u64> {
        (self.wanted > self.ordered).then_some(self.wanted)
    }

    /// Entries up to `through` may be cut now; gives the last one that the disk thread is to be told, if that is news.
    pub(crate) fn may_go(&mut self, through: u64) -> Option<u64> {
        let is_more = through > self.ordered;
        self.ordered = self.ordered.max(through);
        is_more.then_some(through)
    }
}

impl Agreement {
    /// How far the log may be cut that needn't reach back beyond `through`, and for whom the rest is kept. Without
    /// room nothing is.
    pub(crate) fn may_cut(&mut self, through: u64, has_room: bool) -> (u64, Vec<NodeId>) {
        match self {
            Agreement::Led(log) if has_room => log.snapshots.may_cut(through),
            Agreement::Converging(log) => log.may_cut(through, has_room),
            Agreement::Alone | Agreement::Led(_) => (through, Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_cut_once_and_what_was_held_back_follows() {
        let mut cut = LogCut::default();
        assert_eq!(cut.waiting(), None);
        cut.wants(100);
        assert_eq!((cut.waiting(), cut.may_go(40), cut.waiting()), (Some(100), Some(40), Some(100)));
        assert_eq!(cut.may_go(40), None);
        cut.wants(90);
        assert_eq!((cut.waiting(), cut.may_go(100), cut.waiting()), (Some(100), Some(100), None));
    }
}
