//! Promise 7 of the log: a snapshot is {S, E}.
//!
//! Two shards apply the log's entries late, each at its own pace, while a walk
//! takes their buckets a few at a time; the machine crashes at any step of the
//! disk. Whatever snapshot is found, it and the entries behind its S must give
//! exactly the state that the log alone gives, and hold all that was promised.

#![allow(clippy::unwrap_used)] // a test stops where it fails

use bytes::Bytes;
use datastore::engine::{
    Append, Condition, Entry, Placement, Requests, Slice, Table, Version, WriteKind, replay,
};
use datastore::persistence::{
    AppendEntry, CrashKind, Identity, Log, LogOptions, MemoryDisk, NodeUuid, Replay, SnapshotFile,
    SnapshotHeader, SnapshotInfo, SnapshotReader, first_retained_index, initialise, newest_valid_snapshot,
    parse_line, remove_old_snapshots,
};
use std::collections::{BTreeMap, VecDeque};

const SHARDS: usize = 2;
const KEYS: u64 = 40;
/// The walk takes this many buckets at once.
const BUCKETS_PER_STEP: usize = 512;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % bound
    }
}

/// What a shard's mailbox holds.
enum Message {
    Committed { index: u64, writes: Vec<(u32, u32)> },
    BeginWalk { handed_over: u64 },
}

struct Shard {
    slice: Slice<()>,
    mailbox: VecDeque<Message>,
}

struct Walk {
    file: Option<SnapshotFile<MemoryDisk>>,
    began: usize,
    after: u64,
    through: u64,
    /// Shard and bucket that come next.
    at: (usize, usize),
}

struct World {
    random: Random,
    disk: MemoryDisk,
    identity: Identity,
    placement: Placement,
    log: Log<MemoryDisk>,
    shards: Vec<Shard>,
    walk: Option<Walk>,
    /// The S of the snapshots kept.
    kept: Vec<u64>,
    handed_over: u64,
    /// From which step of the disk on, which entry was acknowledged.
    acknowledged: Vec<(usize, u64)>,
    /// Every durable payload.
    history: Vec<(u64, Vec<u8>)>,
    writes: u64,
    snapshots: usize,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 8192, ..LogOptions::default() }
}

impl World {
    fn new(seed: u64) -> World {
        let disk = MemoryDisk::new();
        let identity = Identity {
            node: NodeUuid([7; 16]),
            cluster: None,
            mode: "leader".into(),
            placement_seed: (1, 2),
            created_by: "test".into(),
        };
        initialise(&disk, &options(), &identity, 1).unwrap();
        let (log, _) =
            Log::open(disk.clone(), options(), &identity, Replay::default(), salts(), &mut |_| Ok(()))
                .unwrap();
        let placement = Placement::new(identity.placement_seed, SHARDS);
        let shards = (0..SHARDS)
            .map(|shard| Shard {
                slice: Slice::new(Table::new(placement, shard), 0),
                mailbox: VecDeque::new(),
            })
            .collect();
        World {
            random: Random(seed),
            acknowledged: vec![(disk.steps(), 0)],
            disk,
            identity,
            placement,
            log,
            shards,
            walk: None,
            kept: Vec::new(),
            handed_over: 0,
            history: Vec::new(),
            writes: 0,
            snapshots: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..2 => self.append_group(),
            2..7 => {
                let shard = self.random.below(SHARDS as u64) as usize;
                self.deliver(shard);
            }
            _ => self.walk_on(),
        }
    }

    /// A few writes to a few keys, one group commit.
    fn append_group(&mut self) {
        let mut touched = vec![Append::default(), Append::default()];
        for _ in 0..=self.random.below(3) {
            let key = Bytes::from(format!("key-{}", self.random.below(KEYS)));
            let hash = self.placement.hash(&key);
            let shard = self.placement.shard(hash);
            self.writes += 1;
            let kind = match self.random.below(5) {
                0 => WriteKind::Delete,
                1 => WriteKind::AddVector(Bytes::copy_from_slice(&(self.writes as f32).to_le_bytes())),
                _ => WriteKind::Set(Bytes::from(self.writes.to_string())),
            };
            let slice = &mut self.shards[shard].slice;
            slice.write((), &key, &key, hash, kind, Condition::None);
            touched[shard] = std::mem::take(&mut slice.output().append);
            self.log_group(&mut touched);
        }
    }

    fn log_group(&mut self, touched: &mut [Append]) {
        let pieces: Vec<Vec<u8>> = touched.iter().map(|append| append.bytes.clone()).collect();
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let entry = AppendEntry { kind: 0, term: 1, payload: &slices };
        let appended = self.log.append(&[entry], None).unwrap();
        self.history.push((appended.last_index, pieces.concat()));
        self.handed_over = appended.last_index;
        self.acknowledged.push((self.disk.steps(), appended.last_index));
        let mut ordinal = 0;
        for (shard, append) in touched.iter_mut().enumerate() {
            let writes = std::mem::take(append).writes.into_iter().map(|write| {
                ordinal += 1;
                (write, ordinal - 1)
            });
            let writes: Vec<(u32, u32)> = writes.collect();
            if !writes.is_empty() {
                self.shards[shard]
                    .mailbox
                    .push_back(Message::Committed { index: appended.last_index, writes });
            }
        }
    }

    fn deliver(&mut self, shard: usize) {
        match self.shards[shard].mailbox.pop_front() {
            None => {}
            Some(Message::Committed { index, writes }) => {
                self.shards[shard].slice.committed(index, &writes);
            }
            Some(Message::BeginWalk { handed_over }) => {
                if let Some(walk) = &mut self.walk {
                    walk.began += 1;
                    walk.after = walk.after.min(handed_over);
                }
            }
        }
    }

    fn walk_on(&mut self) {
        let Some(walk) = &mut self.walk else {
            self.walk = Some(Walk { file: None, began: 0, after: u64::MAX, through: 0, at: (0, 0) });
            for shard in &mut self.shards {
                shard.mailbox.push_back(Message::BeginWalk { handed_over: self.handed_over });
            }
            return;
        };
        if walk.began < SHARDS {
            return;
        }
        let header = SnapshotHeader { node: self.identity.node, after: walk.after };
        let file =
            walk.file.get_or_insert_with(|| SnapshotFile::create(self.disk.clone(), header, None).unwrap());
        let (shard, position) = walk.at;
        let slice = &self.shards[shard].slice;
        let end = (position + BUCKETS_PER_STEP).min(slice.table().walk_length());
        for at in position..end {
            slice.table().walk(at).for_each(|entry| file.write_entry(entry).unwrap());
        }
        walk.through = walk.through.max(walk.after).max(slice.applied_index());
        walk.at = if end < slice.table().walk_length() { (shard, end) } else { (shard + 1, 0) };
        if walk.at.0 == SHARDS {
            self.finish_walk();
        }
    }

    fn finish_walk(&mut self) {
        let Some(Walk { file: Some(file), through, after, .. }) = self.walk.take() else { return };
        file.finish(through, &[]).unwrap();
        self.snapshots += 1;
        self.kept.push(after);
        remove_old_snapshots(&self.disk, 2).unwrap();
        let surplus = self.kept.len().saturating_sub(2);
        self.kept.drain(..surplus);
        if self.kept.len() == 2 {
            self.log.cut(self.kept[0]).unwrap();
        }
    }

    /// Recovers a crashed disk and compares it with the log's own history.
    fn check(&self, crashed: &MemoryDisk, promised: u64, replay_behind: u64) -> Result<(), String> {
        let begins = first_retained_index(crashed, self.identity.node).map_err(|error| error.to_string())?;
        let (report, _) =
            newest_valid_snapshot(crashed, self.identity.node, begins).map_err(|error| error.to_string())?;
        let mut tables = BTreeMap::new();
        let mut range = Replay::default();
        if let Some(report) = report {
            let info = SnapshotInfo { name: report.name, through: report.through };
            range = Replay {
                after: report.after + replay_behind,
                must_reach: report.through,
                truncate_damaged: false,
            };
            load(crashed, &info, &self.identity, &mut tables);
        }
        let mut table = Table::new(Placement::new((1, 2), 1), 0);
        let placement = *table.placement();
        for entry in tables.into_values() {
            let hash = placement.hash(entry.key());
            table.insert(entry, hash);
        }
        let mut visit = |entry: datastore::persistence::RecoveredEntry<'_>| {
            apply(&mut table, entry.index, entry.payload);
            Ok(())
        };
        let (_, report) = Log::open(crashed.clone(), options(), &self.identity, range, salts(), &mut visit)
            .map_err(|error| error.to_string())?;
        if report.last_index < promised {
            return Err(format!("the log ends at {}, {promised} was acknowledged", report.last_index));
        }
        let mut expected = Table::new(placement, 0);
        for (index, payload) in self.history.iter().filter(|(index, _)| *index <= report.last_index) {
            apply(&mut expected, *index, payload);
        }
        let (found, expected) = (contents(&table), contents(&expected));
        if found == expected { Ok(()) } else { Err(format!("{found:?}\ninstead of\n{expected:?}")) }
    }
}

fn salts() -> impl FnMut() -> u64 + Send + 'static {
    let mut random = Random(99);
    move || random.below(u64::MAX)
}

fn load(disk: &MemoryDisk, info: &SnapshotInfo, identity: &Identity, into: &mut BTreeMap<Vec<u8>, Entry>) {
    let mut reader = SnapshotReader::open(disk, info, identity.node).unwrap();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        for line in chunk.lines() {
            let line = parse_line(line).unwrap();
            let entry = Entry::new(line.version, &line.key, line.value, line.vector.as_deref());
            into.insert(line.key.to_vec(), entry);
        }
    }
}

fn apply(table: &mut Table, index: u64, payload: &[u8]) {
    for item in Requests::new(payload) {
        let (ordinal, effect) = item.unwrap();
        let hash = table.placement().hash(effect.key());
        replay(table, Version { index, ordinal }, &effect, hash);
    }
}

type Contents = BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>, Option<Vec<f32>>)>;

fn contents(table: &Table) -> Contents {
    (0..table.walk_length())
        .flat_map(|at| table.walk(at))
        .map(|entry| {
            let parts =
                (entry.version(), entry.value().map(<[u8]>::to_vec), entry.vector().map(<[f32]>::to_vec));
            (entry.key().to_vec(), parts)
        })
        .collect()
}

/// Runs a history and crashes it everywhere; how many states and
/// snapshots that were, or the first state that is wrong.
fn crash_everywhere(seed: u64, replay_behind: u64) -> Result<(usize, usize), String> {
    const STEPS: usize = 500;
    let mut world = World::new(seed);
    (0..STEPS).for_each(|_| world.step());
    let mut states = 0;
    for step in world.acknowledged[0].0..=world.disk.steps() {
        let before_crash = world.disk.at_step(step);
        let place = world.acknowledged.partition_point(|(from, _)| *from <= step);
        let promised = world.acknowledged[place - 1].1;
        for kind in [CrashKind::LoseAll, CrashKind::KeepAll, CrashKind::Random(seed ^ step as u64)] {
            world
                .check(&before_crash.crash(kind), promised, replay_behind)
                .map_err(|reason| format!("seed {seed}, step {step}, {kind:?}: {reason}"))?;
            states += 1;
        }
    }
    Ok((states, world.snapshots))
}

#[test]
fn a_walk_beside_late_shards_and_its_log_give_the_state_of_the_log() {
    let first: u64 = std::env::var("DATASTORE_WALK_SEED").map_or(1, |seed| seed.parse().unwrap());
    let seeds: u64 = std::env::var("DATASTORE_WALK_SEEDS").map_or(3, |seeds| seeds.parse().unwrap());
    let (mut states, mut snapshots) = (0, 0);
    for seed in first..first + seeds {
        println!("DATASTORE_WALK_SEED={seed}");
        let (tried, made) = crash_everywhere(seed, 0).unwrap();
        (states, snapshots) = (states + tried, snapshots + made);
    }
    println!("{states} crash states over {snapshots} walks");
    assert!(snapshots > 0, "no walk ever ended: nothing was tested");
}

/// The test sees what it should: replaying from one entry too late is found out.
#[test]
fn a_replay_that_begins_too_late_is_found() {
    let found = (1..20).any(|seed| crash_everywhere(seed, 1).is_err());
    assert!(found, "an S that is too high went unnoticed");
}
