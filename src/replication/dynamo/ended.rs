//! Streams that have ended, and how much of them counts.
//!
//! A stream ends when its directory is evicted, or begins another one. Its writer may go on without
//! knowing that, and others may relay what it writes, or bring it back from an older copy. So every
//! member reports, in its own stream, how much it has of each stream that has ended:
//!
//! ```text
//!   evict 3        by node 1                 stream of 3:  ■ ■ ■ ■ ■ ■ □ □     □ written after that
//!   report of 1    "I have 4 of it"                        ■ ■ ■ ■
//!   report of 2    "I have 6 of it"                        ■ ■ ■ ■ ■ ■ ◄─ what counts: the highest
//! ```
//!
//! Beyond the highest report that a node has heard, it takes nothing of that stream, whoever sends it.
//! Tombstones wait until all members have reported and have the stream up to there: from then on
//! nothing of it can come that they must suppress. Reports of members that are evicted later count no
//! more; each eviction makes all others report anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::members::{MemberChange, Members, Stream};
use super::vector::{Origin, Row, VersionVector};
use crate::persistence::NodeUuid;
use crate::version::Version;

/// What a member has said of the streams that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Whose it is.
    directory: NodeUuid,
    /// Of the entry that said so.
    version: (u64, u32),
    /// How much that member has of each.
    ended: Vec<Row>,
    /// The directories of whose eviction that member knew.
    evicted: Vec<NodeUuid>,
}

impl Report {
    /// Whether it says all that an earlier one of the same directory has said. One of a directory that was put
    /// back to an older copy may say less: what it has said before tells how much it may have since.
    fn replaces(&self, earlier: &Report) -> bool {
        let knows = |evicted: &NodeUuid| self.evicted.contains(evicted);
        let has = |row: &Row| self.of(row.origin).is_some_and(|sequence| sequence >= row.sequence);
        self.directory == earlier.directory
            && self.version > earlier.version
            && earlier.evicted.iter().all(knows)
            && earlier.ended.iter().all(has)
    }

    /// What it occupies, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self)
            + self.ended.capacity() * size_of::<Row>()
            + self.evicted.capacity() * size_of::<NodeUuid>()
    }

    fn of(&self, origin: Origin) -> Option<u64> {
        self.ended.iter().find(|row| row.origin == origin).map(|row| row.sequence)
    }
}

impl Members {
    /// A member has reported.
    pub(super) fn report(
        &mut self,
        directory: NodeUuid,
        ended: &[Row],
        evicted: &[NodeUuid],
        version: (u64, u32),
    ) {
        // The entry that evicted them is earlier, wherever it is.
        evicted.iter().for_each(|evicted| self.mark_evicted(*evicted, version));
        self.add_report(Report { directory, version, ended: ended.to_vec(), evicted: evicted.to_vec() });
    }

    /// Reports that another node has heard.
    pub(super) fn merge_reports(&mut self, other: &Members) {
        other.reports.iter().for_each(|report| self.add_report(report.clone()));
    }

    fn add_report(&mut self, report: Report) {
        if self.reports.iter().any(|known| *known == report || known.replaces(&report)) {
            return;
        }
        self.reports.retain(|known| !report.replaces(known));
        self.reports.push(report);
        self.reports.sort_by_key(|report| (report.directory.0, report.version));
    }

    /// The directories that were evicted.
    pub(super) fn evicted_directories(&self) -> impl Iterator<Item = NodeUuid> {
        self.evicted.iter().map(|(directory, _)| *directory)
    }

    /// Whether any member has reported: who can't read that is no longer let in.
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    fn newest_report(&self, directory: NodeUuid) -> Option<&Report> {
        self.reports.iter().rev().find(|report| report.directory == directory)
    }

    /// All streams that have ended.
    pub(super) fn ended_streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams().iter().filter(|stream| self.ended(stream).is_some())
    }

    /// Whether a stream may begin here: its number is a member's, and has no other directory. Who was let in by
    /// one that doesn't know the member's directory is not let in here by that. Of what has ended as much may
    /// come as counts.
    pub(super) fn expects(&self, stream: &Stream) -> bool {
        let is_its = |known: NodeUuid| known == stream.directory;
        let is_member = self.member(stream.node_id).is_some_and(|place| place.directory.is_none_or(is_its));
        is_member || self.ended(stream).is_some()
    }

    /// How much of a stream that has ended counts: as much as the member that has most of it has reported.
    pub(super) fn limit(&self, origin: Origin) -> u64 {
        let counts = |report: &&Report| {
            let newest = self.newest_report(report.directory);
            !self.is_evicted(report.directory) && newest.is_some_and(|newest| newest == *report)
        };
        self.reports.iter().filter(counts).filter_map(|report| report.of(origin)).max().unwrap_or(0)
    }

    /// How much counts of each stream that has ended.
    pub(super) fn limits(&self) -> BTreeMap<Origin, u64> {
        self.ended_streams().map(|stream| (stream.origin, self.limit(stream.origin))).collect()
    }

    /// Up to which sequence an entry that begins or continues this stream is taken; `None`: it goes on.
    pub(super) fn through(&self, stream: &Stream) -> Option<u64> {
        self.ended(stream).map(|_| self.limit(stream.origin))
    }

    /// Whether every member has reported on a stream, knowing of all evictions that are known here.
    pub(super) fn all_have_reported(&self, origin: Origin) -> bool {
        let has_reported = |directory: NodeUuid| {
            self.newest_report(directory).is_some_and(|report| {
                let knew = |evicted: NodeUuid| report.evicted.contains(&evicted);
                report.of(origin).is_some() && self.evicted_directories().all(knew)
            })
        };
        let mut directories =
            self.node_ids().into_iter().map(|node_id| self.member(node_id).and_then(|place| place.directory));
        directories.all(|directory| directory.is_some_and(has_reported))
    }

    /// What a member that has this is to report, if something has ended that it hasn't reported on.
    ///
    /// A directory that was put back to an older copy may have taken more of an ended stream than it had
    /// said: it says that much again only as far as that counted when it said it.
    pub(super) fn due_report(&self, directory: NodeUuid, has: &VersionVector) -> Option<MemberChange> {
        let last = self.newest_report(directory);
        let is_named = |stream: &Stream| last.is_some_and(|last| last.of(stream.origin).is_some());
        let is_known = |evicted: &NodeUuid| last.is_some_and(|last| last.evicted.contains(evicted));
        let ended: Vec<&Stream> = self.ended_streams().collect();
        let evicted: Vec<NodeUuid> = self.evicted_directories().collect();
        // An older copy has less than it had, and so has who took over what a stream has been replaced by.
        let has_less =
            last.is_some_and(|last| last.ended.iter().any(|row| row.sequence > has.sequence(row.origin)));
        if ended.iter().all(|stream| is_named(stream)) && evicted.iter().all(is_known) && !has_less {
            return None;
        }
        let row = |stream: &&Stream| {
            let row = has.row(stream.origin);
            let own = self.reports.iter().filter(|report| report.directory == directory);
            let own = own.filter(|report| report.of(stream.origin).is_some());
            let counted = own.map(|report| self.counted_then(report, stream.origin)).min();
            Row { sequence: row.sequence.min(counted.unwrap_or(u64::MAX)), ..row }
        };
        Some(MemberChange::Report { directory, ended: ended.iter().map(row).collect(), evicted })
    }

    /// How much of a stream counted, at most, by all reports of those that a report didn't know to be evicted.
    fn counted_then(&self, then: &Report, origin: Origin) -> u64 {
        let counted = self.reports.iter().filter(|report| !then.evicted.contains(&report.directory));
        counted.filter_map(|report| report.of(origin)).max().unwrap_or(0)
    }

    /// Whether a state that has all of this has more of an ended stream than counts.
    pub(super) fn is_excessive(&self, state: &VersionVector) -> bool {
        self.ended_streams().any(|stream| state.sequence(stream.origin) > self.limit(stream.origin))
    }

    /// A directory was evicted, by the entry of this version at the latest.
    pub(super) fn mark_evicted(&mut self, directory: NodeUuid, version: (u64, u32)) {
        match self.evicted.iter_mut().find(|(evicted, _)| *evicted == directory) {
            Some((_, known)) => *known = version.min(*known),
            None => {
                self.evicted.push((directory, version));
                self.evicted.sort_by_key(|(directory, _)| directory.0);
            }
        }
    }

    /// What ended a stream, if it has ended: the version of the entry that evicted its
    /// directory, or that began another one of it.
    pub fn ended(&self, stream: &Stream) -> Option<Version> {
        let version = |(index, ordinal): (u64, u32)| Version { index, ordinal };
        let evicted = self.evicted.iter().find(|(directory, _)| *directory == stream.directory);
        let successor = self.current_stream(stream.directory).filter(|last| last.began > stream.began);
        let ends = [evicted.map(|(_, at)| *at), successor.map(|last| last.began), self.gone(stream)];
        ends.into_iter().flatten().min().map(version)
    }

    /// Who has evicted a number may never have met its directory. A new directory of that number may begin its
    /// stream by a clock that knows nothing of that yet. And the entry that evicted a directory may be lost, while
    /// another directory was let in with its number.
    fn gone(&self, stream: &Stream) -> Option<(u64, u32)> {
        let directory = self.member(stream.node_id).and_then(|place| place.directory);
        if directory == Some(stream.directory) {
            return None;
        }
        let mut evictions = self.evictions_of(stream.node_id).filter(|version| *version > stream.began);
        evictions.next().or_else(|| self.displaced(stream))
    }

    /// What gave a directory's number to another one, which writes by now: a stream that it began later, or an entry
    /// that let it in later though it had begun before.
    fn displaced(&self, stream: &Stream) -> Option<(u64, u32)> {
        let (member, since) = self.member_since(stream.node_id)?;
        let its = self.streams().iter().filter(|other| Some(other.directory) == member.directory);
        let began = its.map(|other| other.began).min()?;
        let is_later = self.last_word(stream.node_id, stream.directory).is_some_and(|word| word < since);
        (is_later || began > stream.began).then(|| began.max(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::dynamo::Place;

    const A: NodeUuid = NodeUuid([1; 16]);
    const B: NodeUuid = NodeUuid([2; 16]);
    const C: NodeUuid = NodeUuid([3; 16]);
    /// The stream of C.
    const ENDED: Origin = 3;

    fn at(index: u64) -> Version {
        Version { index, ordinal: 1 }
    }

    fn begin(members: &mut Members, id: u8) {
        let node =
            Place { node_id: id.into(), directory: Some(NodeUuid([id; 16])), host: "h".into(), port: 1 };
        members.apply(&MemberChange::Begin { origin: id.into(), node }, at(id.into()));
    }

    fn evict(members: &mut Members, id: u8, index: u64) {
        members.apply(
            &MemberChange::Evict { node_id: id.into(), directory: Some(NodeUuid([id; 16])) },
            at(index),
        );
    }

    fn has(sequence: u64) -> VersionVector {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin: ENDED, sequence, time: sequence * 10 });
        vector
    }

    fn report(members: &mut Members, directory: NodeUuid, sequence: u64, index: u64) {
        let change = members.due_report(directory, &has(sequence)).expect("something has ended");
        members.apply(&change, at(index));
    }

    /// Whether a member that has this has more than counts, and nothing to report first.
    fn has_excess(members: &Members, directory: NodeUuid, has: &VersionVector) -> bool {
        members.due_report(directory, has).is_none() && members.is_excessive(has)
    }

    /// Three nodes, of which the last is evicted.
    fn evicted() -> Members {
        let mut members = Members::default();
        (1..=3).for_each(|id| begin(&mut members, id));
        assert_eq!(members.due_report(A, &has(4)), None, "nothing has ended");
        evict(&mut members, 3, 100);
        members
    }

    #[test]
    fn a_stream_has_ended_whose_number_another_directory_has_later() {
        let mut members = Members::default();
        (1..=3).for_each(|id| begin(&mut members, id));
        let successor = Place { node_id: 3, directory: Some(NodeUuid([4; 16])), host: "h".into(), port: 1 };
        members.apply(&MemberChange::Admit { node: successor.clone() }, at(9));
        assert_eq!(members.ended(members.stream(ENDED).unwrap()), None, "it may be about to begin");
        members.apply(&MemberChange::Begin { origin: 4, node: successor }, at(10));
        let stream = members.stream(ENDED).unwrap().clone();
        assert_eq!(members.ended(&stream).map(|version| version.index), Some(10));
        report(&mut members, A, 5, 20);
        assert_eq!(members.through(&stream), Some(5), "what members have of it counts");
        assert!(members.expects(&stream));
    }

    #[test]
    fn of_two_directories_that_two_parted_members_let_in_the_one_that_came_in_earlier_has_ended() {
        let place = |directory: u8| Place {
            node_id: 3,
            directory: Some(NodeUuid([directory; 16])),
            host: "h".into(),
            port: 1,
        };
        // By the one on the one side, by the other on the other side, each of which had begun by itself.
        let changes = [
            (MemberChange::Begin { origin: 4, node: place(4) }, at(80)),
            (MemberChange::Begin { origin: 3, node: place(3) }, at(85)),
            (MemberChange::Admit { node: place(3) }, at(86)),
            (MemberChange::Admit { node: place(4) }, at(100)),
        ];
        let mut members = Members::default();
        (1..=2).for_each(|id| begin(&mut members, id));
        changes.iter().for_each(|(change, version)| members.apply(change, *version));
        let ended = |origin| members.ended(members.stream(origin).unwrap()).map(|version| version.index);
        assert_eq!((ended(3), ended(4)), (Some(100), None));
    }

    #[test]
    fn as_much_counts_as_the_highest_report_says_and_all_must_have_reported() {
        let mut members = evicted();
        let stream = members.stream(ENDED).unwrap().clone();
        assert_eq!(members.through(&stream), Some(0), "nobody has reported");
        report(&mut members, A, 4, 101);
        assert_eq!((members.through(&stream), members.all_have_reported(ENDED)), (Some(4), false));
        report(&mut members, B, 6, 102);
        assert_eq!((members.through(&stream), members.all_have_reported(ENDED)), (Some(6), true));
        assert_eq!(members.due_report(A, &has(5)), None, "it is said once");
        assert!(members.is_excessive(&has(7)) && !members.is_excessive(&has(6)));
        begin(&mut members, 4);
        assert!(!members.all_have_reported(ENDED), "who has joined is to report, too");
    }

    #[test]
    fn reports_of_members_that_are_evicted_later_count_no_more_and_the_others_say_anew_what_they_have() {
        let mut members = evicted();
        begin(&mut members, 4);
        report(&mut members, A, 4, 101);
        report(&mut members, B, 9, 102);
        report(&mut members, NodeUuid([4; 16]), 4, 103);
        assert_eq!(members.limit(ENDED), 9);
        evict(&mut members, 2, 110);
        assert_eq!((members.limit(ENDED), members.all_have_reported(ENDED)), (4, false));
        // What it had taken meanwhile counted.
        report(&mut members, A, 7, 111);
        assert_eq!(members.limit(ENDED), 7);
        assert!(!has_excess(&members, A, &has(7)));
    }

    #[test]
    fn an_older_copy_doesn_t_make_more_of_a_stream_count_than_it_had_reported() {
        let mut members = evicted();
        report(&mut members, A, 4, 101);
        report(&mut members, B, 5, 102);
        // B was put back, has taken more from C before it was told, and goes on as another stream.
        assert!(has_excess(&members, B, &has(8)));
        let node = Place { node_id: 2, directory: Some(B), host: "h".into(), port: 1 };
        members.apply(&MemberChange::Begin { origin: 9, node }, at(120));
        report(&mut members, B, 8, 121);
        assert_eq!(members.limit(ENDED), 5);
        assert!(has_excess(&members, B, &has(8)));
    }

    #[test]
    fn an_older_copy_that_has_less_than_it_said_makes_less_count_once_all_have_said_anew() {
        let mut members = evicted();
        report(&mut members, A, 4, 101);
        report(&mut members, B, 8, 102);
        let node = Place { node_id: 2, directory: Some(B), host: "h".into(), port: 1 };
        members.apply(&MemberChange::Begin { origin: 9, node }, at(120));
        report(&mut members, B, 6, 121);
        assert!(!has_excess(&members, A, &has(8)), "it has had more by the earlier report, and says so");
        report(&mut members, A, 8, 122);
        assert_eq!(members.limit(ENDED), 8);
        assert!(!has_excess(&members, A, &has(8)));
    }

    #[test]
    fn reports_heard_in_any_order_are_the_same() {
        let mut members = evicted();
        let (mut one, mut other) = (members.clone(), members.clone());
        report(&mut members, A, 4, 101);
        report(&mut members, B, 6, 102);
        let (a, b) = (members.due_report(C, &has(9)), members.clone());
        assert!(a.is_some());
        one.merge(&b);
        let changes = [(A, 4, 101), (B, 6, 102)].map(|(directory, sequence, index)| {
            (other.clone().due_report(directory, &has(sequence)).unwrap(), at(index))
        });
        changes.iter().rev().for_each(|(change, version)| other.apply(change, *version));
        assert_eq!(one, other);
    }
}
