//! How the disk thread looks after the disk's room: it closes the gate for writes while what is free is only enough for
//! a snapshot and for segments, and asks for the snapshot that lets the log go.

use std::time::{Duration, Instant};

use datastore::persistence::{Disk, DiskGauge, Room, SnapshotForRoom};
use datastore::settings::SnapshotCompression;

use crate::disk_thread::DiskThread;
use crate::node::lock;
use crate::wal_writer::WalMessage;

/// How often an idle disk thread looks at the room on the disk.
pub(crate) const ROOM_CHECK: Duration = Duration::from_secs(1);

/// A disk thread that is never idle looks after so many bytes, too: a fast
/// writer must not use up the reserve between two looks.
const ROOM_CHECK_BYTES: u64 = 256 * 1024;

/// The disk counts as full for so long after it has refused a frame for want of room.
const REFUSED_COUNTS_FOR: Duration = Duration::from_secs(2);

/// A snapshot that had room and failed for another reason is asked for again after this.
const WISH_AGAIN: Duration = Duration::from_secs(30);

/// What the disk thread knows of the room.
#[derive(Default)]
pub struct DiskRoom {
    gauge: DiskGauge,
    checked: Option<Instant>,
    /// What was appended since.
    pub(crate) unchecked_bytes: u64,
    wish: SnapshotForRoom,
    wished: Option<Instant>,
    /// Snapshots made by then: if there is a new one since, there is no failure to wait after.
    made_at_wish: u64,
    /// When the disk has last refused a frame for want of room: a quota shows in no measurement.
    refused: Option<Instant>,
    /// Segments that the last cut has left, if it was behind a snapshot that had just been made: another one lets
    /// none of them go.
    segments_after_cut: usize,
    /// Snapshots made when the log was cut last.
    made_at_cut: u64,
}

impl DiskRoom {
    /// The log was cut, and so many segments stay. A cut behind a snapshot that was there already leaves what a new
    /// one would let go.
    pub(crate) fn log_was_cut(&mut self, segments: usize, snapshots_made: u64) {
        let is_behind_new = std::mem::replace(&mut self.made_at_cut, snapshots_made) != snapshots_made;
        self.segments_after_cut = if is_behind_new { segments } else { 0 };
    }
}

impl<D: Disk> DiskThread<D> {
    pub(crate) fn check_room_sometimes(&mut self) {
        let now = Instant::now();
        let is_recent = self.room.checked.is_some_and(|last| now.duration_since(last) < ROOM_CHECK / 4);
        if is_recent && self.room.unchecked_bytes < ROOM_CHECK_BYTES {
            return;
        }
        self.check_room(now);
    }

    /// A frame was refused for want of room.
    pub(crate) fn refused_for_room(&mut self) {
        let now = Instant::now();
        self.room.refused = Some(now);
        self.check_room(now);
    }

    fn check_room(&mut self, now: Instant) {
        self.room.checked = Some(now);
        self.room.unchecked_bytes = 0;
        let compressed = self.node.settings.snapshot_compression == SnapshotCompression::Zstd;
        let snapshot_bytes = self.node.snapshot_bytes(compressed);
        let segment_bytes = self.node.settings.segment_bytes;
        let mut room = match self.room.gauge.measure(self.log.disk(), snapshot_bytes, segment_bytes) {
            Ok(room) => room,
            Err(error) => {
                tracing::warn!(%error, "could not ask how much room the disk has");
                return;
            }
        };
        let counts = |refused| now.duration_since(refused) < REFUSED_COUNTS_FOR;
        room.full |= self.room.refused.is_some_and(counts);
        if room.full != self.node.permits.is_disk_full() {
            tracing::warn!(?room, snapshot_bytes, "the disk's reserve is reached, or free again");
        }
        self.node.permits.set_disk_full(room.full);
        self.ask_for_snapshot(&room, now);
    }

    fn ask_for_snapshot(&mut self, room: &Room, now: Instant) {
        // Without room a snapshot is compressed, whatever was wished for.
        let needed = self.node.snapshot_bytes_needed(true);
        let lets_go = self.log.figures().segments > self.room.segments_after_cut.max(1);
        let made = lock(&self.node.snapshots).made;
        let is_late = self.room.made_at_wish != made
            || self.room.wished.is_none_or(|last| now.duration_since(last) >= WISH_AGAIN);
        if self.room.wish.is_due(room, needed, lets_go, is_late) {
            (self.room.wished, self.room.made_at_wish) = (Some(now), made);
            self.wal_writer.send(WalMessage::DiskFull);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cut_behind_a_new_snapshot_leaves_what_no_other_one_lets_go() {
        let mut room = DiskRoom::default();
        room.log_was_cut(6, 1);
        assert_eq!(room.segments_after_cut, 6);
        // The snapshot before the newest was let go, and the log behind it.
        room.log_was_cut(4, 1);
        assert_eq!(room.segments_after_cut, 0);
    }
}
