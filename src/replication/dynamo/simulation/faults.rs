//! What goes wrong, and when.

use super::cluster::{Cluster, Event};
use super::disk::Snapshot;
use super::node::{Node, Process, SHARDS, Walk};

const WALK_ENTRIES: usize = 2;

impl Cluster {
    /// One more thing goes wrong, or is mended.
    pub fn fault(&mut self) {
        let count = self.nodes.len();
        let place = self.below(count as u64) as usize;
        let other = (place + 1 + self.below(count as u64 - 1) as usize) % count;
        match self.below(22) {
            0 | 1 => self.crash_for_a_while(place),
            2 => (0..count).for_each(|place| self.crash_for_a_while(place)),
            3 | 4 => self.part_off(&[place]),
            5 => self.part_off(&[place, other]),
            6 => {
                self.figures.partitions += 1;
                self.part(place, other);
            }
            7..10 => self.parted.clear(),
            10 => self.cut(place, other),
            11 => self.delay_ms_max = [2, 20, 400][self.below(3) as usize],
            12 => self.failed_syncs_percent = [0, 0, 30][self.below(3) as usize],
            13 => self.nodes[place].sync_ms = [1, 30, 500][self.below(3) as usize],
            14 | 15 => self.snapshot(place),
            16 => self.nodes[place].offset_ms += self.below(100) as i64 - 50,
            17 => self.clock_jumps(place),
            18 | 19 => {
                let evicts = self.evict(place, other);
                if evicts && count > 4 && self.below(3) == 0 {
                    // Another one with it, whether it was lost before the first one or not.
                    let third = (0..count).find(|third| ![place, other].contains(third));
                    third.into_iter().for_each(|third| self.evict_too(third, other));
                }
            }
            _ if self.nodes[place].older.is_none() => self.copy_directory(place),
            _ => {
                let (begins_anew, moves) = (self.below(2) == 0, self.below(2) == 0);
                // Half of them reach nobody for a while.
                if self.restore(place, begins_anew, moves) && self.below(2) == 0 {
                    self.part_off(&[place]);
                }
            }
        }
    }

    pub fn crash_for_a_while(&mut self, place: usize) {
        if self.nodes[place].process.is_none() {
            return;
        }
        self.figures.crashes += 1;
        self.crash(place);
        let longest = [60, 2_000, 9_000][self.below(3) as usize];
        let down_ms = 10 + self.below(longest);
        self.after(down_ms, Event::Restart(place));
    }

    /// These nodes reach each other, and none of the others.
    pub fn part_off(&mut self, island: &[usize]) {
        self.figures.partitions += 1;
        for one in island {
            for other in (0..self.nodes.len()).filter(|other| !island.contains(other)) {
                self.part(*one, other);
            }
        }
    }

    fn clock_jumps(&mut self, place: usize) {
        // One at a time: were most of them wrong, nobody could tell.
        if self.nodes.iter().any(|node| node.offset_ms.unsigned_abs() > 1_000) {
            return;
        }
        self.figures.clock_jumps += 1;
        self.nodes[place].offset_ms = [-10_000, -3_000, -800, 800, 3_000, 10_000][self.below(6) as usize];
        let wrong_ms = 500 + self.below(12_000);
        self.after(wrong_ms, Event::ClockSet(place));
    }

    /// Whether all run and agree about who belongs to them.
    fn all_agree(&self) -> bool {
        self.nodes.iter().all(|node| !node.is_evicted) && self.members_agree()
    }

    /// Whether all do who are not evicted.
    fn members_agree(&self) -> bool {
        let left: Vec<&Node> = self.nodes.iter().filter(|node| !node.is_evicted).collect();
        let all: Vec<_> = left.iter().filter_map(|node| node.process.as_ref()).collect();
        let agree = all.windows(2).all(|pair| pair[0].members() == pair[1].members());
        let settled = |node: &&Node| !node.must_be_admitted && node.must_hear.is_empty();
        // An eviction that isn't durable yet counts, too.
        let evicts = |process: &&Process| {
            let id = process.replica.place.node_id;
            left.iter().any(|node| node.id != id && process.replica.is_cut_off(node.id))
        };
        all.len() == left.len() && agree && left.iter().all(settled) && !all.iter().any(evicts)
    }

    /// An operator gives a node up. Says whether.
    pub fn evict(&mut self, victim: usize, by: usize) -> bool {
        if !self.all_agree() || self.nodes.len() < 3 {
            return false;
        }
        let (id, directory) = (self.nodes[victim].id, self.nodes[victim].disk.directory);
        let now_ms = self.nodes[by].clock_ms(self.now_ms);
        let Some(process) = &mut self.nodes[by].process else { return false };
        let known = process.replica.members().member(id).and_then(|place| place.directory);
        if known != Some(directory) {
            return false;
        }
        process.replica.evict(id, now_ms);
        self.is_dirty.insert(by);
        self.pump();
        // Half of them go on, and don't hear of it.
        if self.below(2) == 0 {
            self.crash_for_a_while(victim);
        }
        true
    }

    /// An operator gives another node up, right behind one.
    fn evict_too(&mut self, victim: usize, by: usize) {
        let (id, directory) = (self.nodes[victim].id, self.nodes[victim].disk.directory);
        let Some(process) = &self.nodes[by].process else { return };
        let known = process.replica.members().member(id).and_then(|place| place.directory);
        if known == Some(directory) && !self.nodes[by].is_evicted && !self.nodes[victim].is_evicted {
            self.figures.evicted_together += 1;
            self.evict_now(victim, by);
        }
    }

    /// An operator gives a node up that is down.
    pub fn evict_now(&mut self, victim: usize, by: usize) {
        let (id, now_ms) = (self.nodes[victim].id, self.nodes[by].clock_ms(self.now_ms));
        if let Some(process) = &mut self.nodes[by].process {
            process.replica.evict(id, now_ms);
        }
        self.is_dirty.insert(by);
        self.pump();
    }

    /// An operator gives up who reaches nobody for good: an older copy that knows each other
    /// node by a directory that is gone. It refuses them, and says so; what only it has
    /// acknowledged is lost. So it is with an older copy that has taken too much from an evicted node.
    pub fn give_up_stranded(&mut self) {
        let is_stranded = |node: &Node| {
            let Some(process) = node.process.as_ref().filter(|_| !node.is_evicted) else { return false };
            let knows_another = |other: &Node| {
                let is_another = |known| known != other.disk.directory;
                let known = process.replica.members().member(other.id);
                known.is_none_or(|place| place.directory.is_some_and(is_another))
            };
            let is_alone = self.nodes.iter().filter(|other| other.id != node.id).all(knows_another);
            // One of the others has to be a member, who says so.
            let is_member =
                |other: &Node| other.id != node.id && !other.is_evicted && !other.must_be_admitted;
            let has_others = self.nodes.iter().any(is_member);
            has_others && (is_alone || !process.replica.excess().is_empty())
        };
        if let Some(victim) = self.nodes.iter().position(is_stranded) {
            let process = self.nodes[victim].process.as_ref();
            match process.is_some_and(|process| !process.replica.excess().is_empty()) {
                true => self.figures.excessive += 1,
                false => self.figures.stranded += 1,
            }
            return self.give_up(victim);
        }
        self.empty_unknown();
        self.give_up_astray();
        self.let_in_stranded();
    }

    /// Who can't join: it was admitted by one that was lost before the others heard of it, or the one that
    /// has evicted its earlier directory was.
    fn let_in_stranded(&mut self) {
        let is_out = |node: &Node| {
            let process = node.process.as_ref().filter(|_| node.must_be_admitted && !node.is_evicted);
            let reaches_member = |id: &u64| !self.nodes[*id as usize - 1].must_be_admitted;
            process.is_some_and(|process| !process.replica.in_contact().iter().any(reaches_member))
        };
        let out: Vec<usize> = (0..self.nodes.len()).filter(|place| is_out(&self.nodes[*place])).collect();
        for place in out {
            self.figures.stranded += 1;
            match self.nodes[place].process.as_ref().is_some_and(|process| process.replica.is_new()) {
                true => self.give_up(place),
                false => self.wipe(place),
            }
        }
    }

    /// Whom only some take for a member, by their flags, is evicted by one of these.
    fn give_up_astray(&mut self) {
        let unknown = self.processes().find_map(|process| process.replica.unknown_members().first().copied());
        let Some((node_id, directory)) = unknown else { return };
        let knows = |node: &Node| {
            let members = node.process.as_ref().map(|process| process.replica.members());
            let known = members.and_then(|members| members.member(node_id)?.directory);
            node.id != node_id && !node.is_evicted && known == Some(directory)
        };
        if let Some(by) = self.nodes.iter().position(knows) {
            self.figures.stranded += 1;
            self.evict_now(node_id as usize - 1, by);
        }
    }

    /// Who was admitted by one that was evicted before the others heard of it has to begin empty, though it has
    /// taken writes meanwhile: they are lost.
    fn empty_unknown(&mut self) {
        let is_known = |node: &Node| {
            let knows = |other: &Node| {
                let members = other.process.as_ref().map(|process| process.replica.members());
                let known = members.and_then(|members| members.member(node.id)?.directory);
                other.id != node.id && known == Some(node.disk.directory)
            };
            self.nodes.iter().any(knows)
        };
        let is_unknown = |node: &Node| {
            let process = node.process.as_ref().filter(|_| !node.is_evicted && !node.must_be_admitted);
            process.is_some_and(|process| process.replica.in_contact().is_empty()) && !is_known(node)
        };
        let Some(place) = self.nodes.iter().position(is_unknown) else { return };
        self.figures.stranded += 1;
        self.nodes[place].is_evicted = true;
        let left = self.member_vectors();
        self.registry.left(&left);
        self.wipe(place);
    }

    /// An operator evicts a number, at the member that is in contact with most others.
    fn give_up(&mut self, victim: usize) {
        let in_contact = |place: &usize| {
            let process = self.nodes[*place].process.as_ref();
            process.map_or(0, |process| process.replica.in_contact().len())
        };
        let is_other = |place: &usize| *place != victim && !self.nodes[*place].must_be_admitted;
        let Some(by) = (0..self.nodes.len()).filter(is_other).max_by_key(in_contact) else { return };
        let process = self.nodes[by].process.as_ref();
        let id = self.nodes[victim].id;
        if process.is_some_and(|process| process.replica.members().member(id).is_some()) {
            self.evict_now(victim, by);
        }
    }

    fn copy_directory(&mut self, place: usize) {
        if self.all_agree() {
            self.nodes[place].older = Some(self.nodes[place].disk.copy());
        }
    }

    /// An older copy of a node's directory takes its place; the node can tell (`begins_anew`),
    /// or only its peers can; it `moves` to another port. Says whether there is a copy that fits.
    pub fn restore(&mut self, place: usize, begins_anew: bool, moves: bool) -> bool {
        let fits = |copy: &super::disk::SimulatedDisk| copy.directory == self.nodes[place].disk.directory;
        // A node that was evicted since may go on, and be heard first.
        let may = self.members_agree() && !self.nodes[place].is_evicted;
        if !may || !self.nodes[place].older.as_ref().is_some_and(fits) {
            return false;
        }
        self.figures.restored += 1;
        self.figures.moved += u64::from(moves);
        self.crash(place);
        let node = &mut self.nodes[place];
        if let Some(copy) = node.older.take() {
            node.disk = copy;
        }
        node.begins_anew = begins_anew;
        node.vector = Default::default();
        // To read what it has, it is started and killed.
        self.start(place);
        self.crash(place);
        self.nodes[place].begins_anew = begins_anew;
        self.nodes[place].is_restored = !begins_anew;
        let left = self.member_vectors();
        self.registry.left(&left);
        let ordered = self.processes().map(|process| process.replica.ordered.clone());
        // What only an evicted node has may still come from it.
        let all: Vec<_> = self.nodes.iter().map(|node| node.vector.clone()).chain(ordered).collect();
        self.registry.forget_unless_on(&all);
        self.nodes[place].port += u16::from(moves);
        self.after(1_500, Event::Restart(place));
        true
    }

    /// The node makes a snapshot, and cuts its log behind it.
    pub fn snapshot(&mut self, place: usize) {
        let (incarnation, keep) = (self.nodes[place].incarnation, self.below(40));
        let Some(process) = self.nodes[place].process.as_mut().filter(|process| process.walk.is_none())
        else {
            return;
        };
        self.figures.snapshots += 1;
        process.replica.walk(true);
        let state = process.replica.history().state();
        let (shard, position, entries) = (0, 0, Vec::new());
        process.walk = Some(Walk { after: process.applied, state, shard, position, entries, keep });
        self.is_dirty.insert(place);
        self.after(3, Event::WalkStep(place, incarnation));
    }

    /// A step of the walk; with the last one the snapshot is durable.
    pub fn walk_step(&mut self, place: usize) {
        let (incarnation, delay) = (self.nodes[place].incarnation, 1 + self.below(60));
        let node = &mut self.nodes[place];
        let Some(process) = &mut node.process else { return };
        let Some(mut walk) = process.walk.take() else { return };
        let table = process.slices[walk.shard].table();
        let (entries, next) = table.walk_step_whole(walk.position, WALK_ENTRIES);
        walk.entries.extend(entries);
        walk.position = next;
        if next == table.walk_length() {
            (walk.shard, walk.position) = (walk.shard + 1, 0);
        }
        if walk.shard < SHARDS {
            process.walk = Some(walk);
            return self.after(delay, Event::WalkStep(place, incarnation));
        }
        let Walk { after, state, entries, keep, .. } = walk;
        let cut_index = process.replica.may_cut(after.saturating_sub(keep));
        let first_index =
            node.disk.snapshot(Snapshot { after, through: process.applied, state, entries }, cut_index);
        process.replica.walk(false);
        process.replica.cut(first_index);
        self.figures.cuts += u64::from(first_index > 1);
        self.is_dirty.insert(place);
    }
}
