//! A block of the log that the disk doesn't give back: it is said once, and the segment that it is
//! in is let go.
//!
//! ```text
//!   read back ─► NotFound ─► disk thread: cut meanwhile? ─► Unreadable ─► the replica serves nobody from there
//!                                                                     └─► two snapshots, one after the other:
//!                                                                         behind the second one the log is cut
//! ```
//!
//! The node itself has all that is in the segment, as keys. But it would not start on such a log.

use std::sync::Mutex;

use datastore::query::Alarm;

use crate::mailbox::lock;

/// Normally two are enough; the segment may have had entries that came while the first one began.
const SNAPSHOTS_MAX: u32 = 4;

/// What of a node's log can't be read; shared by its actors.
#[derive(Default)]
pub struct UnreadableLog {
    found: Mutex<Option<Found>>,
}

#[derive(Clone)]
struct Found {
    index: u64,
    reason: String,
}

impl UnreadableLog {
    /// This entry can't be read, for this reason. Says whether that is news, and the log then, once for each block:
    /// peers may ask for it hundreds of times a second.
    pub fn found(&self, index: u64, reason: &str) -> bool {
        let mut found = lock(&self.found);
        if found.as_ref().is_some_and(|known| known.index >= index) {
            return false;
        }
        *found = Some(Found { index, reason: reason.to_string() });
        tracing::error!(
            index,
            reason,
            "A PART OF THE LOG CAN'T BE READ BACK: peers that lack it are sent this node's keys, and snapshots are \
             made that let it go; look at the disk, and don't restart this node before that"
        );
        true
    }

    /// The log begins at this entry now. Says whether that was what it took.
    pub fn cut(&self, first_index: u64) -> bool {
        lock(&self.found).take_if(|found| found.index < first_index).is_some()
    }

    /// Whether there is something.
    pub fn is_there(&self) -> bool {
        lock(&self.found).is_some()
    }

    /// What `cluster` says of it.
    pub fn alarm(&self, node_id: u64) -> Option<Alarm> {
        let Found { index, reason } = lock(&self.found).clone()?;
        let message = format!(
            "entry {index} of this node's log can't be read back: {reason}. Nodes that lack it are sent this node's \
             keys instead; this ends when snapshots have let that part of the log go, and until then this node must \
             not be restarted. Look at its disk"
        );
        Some(Alarm::of("unreadable_log", node_id, message))
    }
}

/// The snapshots that let a segment go.
#[derive(Default)]
pub(crate) struct LettingGo {
    /// How many more may be made.
    left: u32,
    /// How far the last one reached; 0 before the first.
    reached: u64,
    /// It is on its way to a later entry.
    goes_on: bool,
}

/// What is to be done next about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing now.
    Wait,
    /// The next snapshot would be the last one again: the log must have gone on by then.
    GoOn,
    /// Make one.
    Snapshot,
}

impl LettingGo {
    /// Something can't be read.
    pub(crate) fn begin(&mut self) {
        *self = LettingGo { left: SNAPSHOTS_MAX, reached: 0, goes_on: false };
    }

    /// It is gone.
    pub(crate) fn end(&mut self) {
        self.left = 0;
    }

    /// What to do while no snapshot is under way; the shards have all up to `handed_over`.
    pub(crate) fn next(&self, handed_over: u64) -> Step {
        if self.left == 0 {
            return Step::Wait;
        }
        if handed_over > self.reached {
            return Step::Snapshot;
        }
        if self.goes_on { Step::Wait } else { Step::GoOn }
    }

    /// The log was asked to go on; whether it does.
    pub(crate) fn asked(&mut self, goes_on: bool) {
        self.goes_on = goes_on;
    }

    /// A snapshot has ended that reaches up to this entry.
    pub(crate) fn made(&mut self, through: u64) {
        self.left = self.left.saturating_sub(1);
        self.reached = through;
        self.goes_on = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_t_be_read_is_news_once_and_an_alarm_until_it_is_cut() {
        let log = UnreadableLog::default();
        assert!(log.alarm(3).is_none());
        assert!(log.found(70, "no frame") && !log.found(70, "no frame") && !log.found(60, "no frame"));
        let alarm = log.alarm(3).unwrap();
        assert_eq!((alarm.code, alarm.node_id), ("unreadable_log", Some(3)));
        assert!(alarm.message.contains("entry 70") && alarm.message.contains("no frame"));
        assert!(!log.cut(70) && log.is_there());
        assert!(log.cut(71) && !log.is_there() && log.alarm(3).is_none());
    }

    #[test]
    fn a_second_snapshot_is_another_one_and_they_end_at_last() {
        let mut letting_go = LettingGo::default();
        assert_eq!(letting_go.next(99), Step::Wait);
        letting_go.begin();
        assert_eq!(letting_go.next(99), Step::Snapshot);
        letting_go.made(99);
        assert_eq!(letting_go.next(99), Step::GoOn);
        letting_go.asked(false);
        assert_eq!(letting_go.next(99), Step::GoOn, "it didn't");
        letting_go.asked(true);
        assert_eq!(letting_go.next(99), Step::Wait);
        assert_eq!(letting_go.next(100), Step::Snapshot);
        letting_go.made(100);
        letting_go.end();
        assert_eq!(letting_go.next(200), Step::Wait);
        letting_go.begin();
        (0..u64::from(SNAPSHOTS_MAX)).for_each(|made| letting_go.made(made));
        assert_eq!(letting_go.next(200), Step::Wait);
    }
}
