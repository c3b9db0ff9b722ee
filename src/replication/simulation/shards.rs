//! The shards of a node: what reaches them waits in one queue each, in order.
//!
//! ```text
//! connections ─ Request ─┐
//! WalWriter ─── Notice ──┼─► queue ─► Slice ─► answers ─► checker
//!                        │                └──► Append ─► queue ─► WalWriter
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::Mutant;
use super::checker::{Operation, What};
use super::cluster::{Cluster, Event};
use super::node::{SHARDS, State, placement};
use super::snapshots::WALK_STEPS;
use crate::engine::{Answer, Append, Condition, Entry, Slice, Table, Version, WriteKind};
use crate::error::{Code, Error};
use crate::replication::notices::{Notice, OfficeNotice, ShardOffice, apply_logged};

/// What a shard hears.
pub enum Mail {
    /// From a connection: its part of the operation.
    Request(Operation),
    /// From the WalWriter.
    Notice(Notice),
    /// From the WalWriter: a state that arrived whole.
    Install(State),
    /// A step of the walk of the snapshot that began behind this entry.
    Walk(u64, usize),
}

/// One shard.
pub struct SimulatedShard {
    pub slice: Slice<Operation>,
    pub office: ShardOffice,
    pub mail: VecDeque<Mail>,
    /// On their way to the WalWriter: each with the office that stands on it.
    pub appends: VecDeque<(Append, u64)>,
    pub flush_is_due: bool,
}

impl SimulatedShard {
    pub fn new(table: Table, applied: u64) -> SimulatedShard {
        SimulatedShard {
            slice: Slice::new(table, applied),
            office: ShardOffice::default(),
            mail: VecDeque::new(),
            appends: VecDeque::new(),
            flush_is_due: false,
        }
    }

    /// The entries of a step's buckets.
    fn walk(&self, step: usize) -> Vec<Entry> {
        let table = self.slice.table();
        let bucket = |step: usize| table.walk_length() * step / WALK_STEPS;
        (bucket(step)..bucket(step + 1)).flat_map(|position| table.walk(position)).cloned().collect()
    }

    fn current(&self, key: &[u8]) -> Option<Version> {
        self.slice.table().get(key, placement().hash(key)).map(Entry::version)
    }
}

impl Cluster {
    /// Puts something into a shard's queue.
    pub fn mail(&mut self, place: usize, shard: usize, mail: Mail) {
        let (incarnation, queue_ms) = (self.nodes[place].incarnation, self.nodes[place].queue_ms);
        let delay = self.below(queue_ms + 1);
        let Some(process) = &mut self.nodes[place].process else { return };
        let overtakes = matches!(mail, Mail::Install(_)) && self.mutant == Some(Mutant::InstallOvertakes);
        if overtakes {
            process.shards[shard].mail.push_front(mail);
        } else {
            process.shards[shard].mail.push_back(mail);
        }
        self.after(delay, Event::Shard(place, incarnation, shard));
    }

    /// A shard takes the next of its queue.
    pub fn shard(&mut self, place: usize, number: usize) {
        let Some(process) = &mut self.nodes[place].process else { return };
        let shard = &mut process.shards[number];
        match shard.mail.pop_front() {
            Some(Mail::Request(operation)) => self.request(place, number, operation),
            Some(Mail::Notice(notice)) => self.notice(place, number, notice),
            Some(Mail::Install(state)) => {
                shard.slice.install(state.table(number), state.applied);
                self.compare(place, number, state.applied);
            }
            Some(Mail::Walk(after, step)) => {
                let (entries, applied) = (shard.walk(step), shard.slice.applied_index());
                self.walked(place, after, entries, applied);
                if step + 1 < WALK_STEPS {
                    self.mail(place, number, Mail::Walk(after, step + 1));
                }
            }
            None => {}
        }
        self.carry_out_of_shard(place, number, None);
    }

    fn notice(&mut self, place: usize, number: usize, notice: Notice) {
        let Some(process) = &mut self.nodes[place].process else { return };
        let shard = &mut process.shards[number];
        match notice {
            Notice::Committed { index, writes } => {
                for (write, ordinal) in writes {
                    let Some(process) = &mut self.nodes[place].process else { return };
                    process.shards[number].slice.committed(index, &[(write, ordinal)]);
                    self.carry_out_of_shard(place, number, Some(Version { index, ordinal }));
                }
            }
            Notice::Refused { writes, error } => shard.slice.refused(writes.into_iter(), &error),
            Notice::Logged(entries) => {
                for (index, payload) in &entries {
                    apply_logged(&mut shard.slice, number, *index, payload);
                }
            }
            Notice::Office(notice) => {
                let notice = self.mistaken(notice);
                let Some(process) = &mut self.nodes[place].process else { return };
                let shard = &mut process.shards[number];
                shard.office.changed(notice, &mut shard.slice);
            }
            Notice::StateHash(index) => self.compare(place, number, index),
        }
    }

    fn mistaken(&self, notice: OfficeNotice) -> OfficeNotice {
        let ended = match notice.ended {
            Some(_) if self.mutant == Some(Mutant::LostAnsweredNotApplied) => {
                Some(Error::new(Code::NoLeader, "this node leads no more"))
            }
            ended => ended,
        };
        OfficeNotice { ended, ..notice }
    }

    /// The slice is behind this entry: every replica's is the same there.
    pub fn compare(&mut self, place: usize, number: usize, index: u64) {
        let id = self.nodes[place].id;
        let Some(process) = self.nodes[place].process.as_ref().filter(|_| self.is_judged(place)) else {
            return;
        };
        let hash = process.shards[number].slice.table().state_hash().expect("it is kept");
        self.checker.state(id, number, index, hash);
    }

    fn request(&mut self, place: usize, number: usize, operation: Operation) {
        let what = self.checker.what(operation).clone();
        let Some(process) = &mut self.nodes[place].process else { return };
        let SimulatedShard { slice, office, .. } = &mut process.shards[number];
        let refusal = (!office.is_held()).then(|| Error::new(Code::NotLeader, "this node leads no more"));
        let kind = |deletes: bool| match deletes {
            true => WriteKind::Delete,
            false => WriteKind::Set(Bytes::from(operation.to_string())),
        };
        match what {
            What::Get { key, .. } => slice.get(operation, key, placement().hash(key)),
            What::Write { .. } | What::Bulk { .. } if refusal.is_some() => {
                let error = refusal.expect("there is one");
                match what {
                    What::Bulk { .. } => slice.refuse_part(operation, operation, SHARDS as u32, error),
                    _ => slice.output().answers.push((operation, Answer::Refused(error))),
                }
            }
            What::Write { key, deletes, condition } => {
                let condition = self.looked_at(place, number, operation, key, condition);
                let Some(condition) = condition else { return };
                let Some(process) = &mut self.nodes[place].process else { return };
                let arena = Bytes::from_static(key);
                let (hash, kind) = (placement().hash(key), kind(deletes));
                process.shards[number].slice.write(operation, &arena, &arena, hash, kind, condition);
            }
            What::Bulk { keys, deletes } => {
                let hashed = keys.iter().map(|key| (Bytes::from_static(key), placement().hash(key)));
                let own = hashed.filter(|(_, hash)| placement().shard(*hash) == number);
                let writes = own.map(|(key, hash)| (key, hash, kind(deletes)));
                let parts = if self.mutant == Some(Mutant::PartAlone) { 1 } else { SHARDS as u32 };
                slice.write_part(operation, operation, parts, writes);
            }
        }
    }

    /// The mistake of looking at a condition at once; `None`: it was refused.
    fn looked_at(
        &mut self,
        place: usize,
        number: usize,
        operation: Operation,
        key: &'static [u8],
        condition: Condition,
    ) -> Option<Condition> {
        if self.mutant != Some(Mutant::ConditionWithoutWaiting) {
            return Some(condition);
        }
        let process = self.nodes[place].process.as_ref()?;
        let current = process.shards[number].current(key);
        let holds = match condition {
            Condition::Absent => current.is_none(),
            Condition::Version(wanted) => wanted == current,
            _ => true,
        };
        if !holds {
            self.checker.mismatch(operation, current);
        }
        holds.then_some(Condition::None)
    }

    /// What the slice says goes out. `version`: of the write that it has just applied.
    fn carry_out_of_shard(&mut self, place: usize, number: usize, version: Option<Version>) {
        let incarnation = self.nodes[place].incarnation;
        let Some(process) = &mut self.nodes[place].process else { return };
        let shard = &mut process.shards[number];
        let output = shard.slice.output();
        output.changes.clear();
        let answers = std::mem::take(&mut output.answers);
        let is_due = !output.append.is_empty() && !shard.flush_is_due;
        if is_due {
            shard.flush_is_due = true;
            let delay = self.below(3);
            self.after(delay, Event::Flush(place, incarnation, number));
        }
        let is_judged = self.is_judged(place);
        answers
            .into_iter()
            .filter(|(operation, _)| is_judged && self.checker.is_asked(*operation))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|(operation, answer)| self.answer(operation, answer, version));
    }

    fn answer(&mut self, operation: Operation, answer: Answer, version: Option<Version>) {
        match answer {
            Answer::Entry(entry) => self.checker.read(operation, entry.as_ref()),
            Answer::Written(version) | Answer::Part { version, .. } => {
                self.acknowledge(operation, version, None)
            }
            Answer::Deleted(existed, _) => {
                let version = version.expect("a deletion is answered when it is applied");
                self.acknowledge(operation, version, Some(existed));
            }
            Answer::Refused(error) => self.checker.refused(operation, &error),
            Answer::Entries(_) => unreachable!("nobody asks for several"),
        }
    }

    /// What gathered in a shard leaves for the log.
    pub fn flush_shard(&mut self, place: usize, number: usize) {
        let (incarnation, queue_ms) = (self.nodes[place].incarnation, self.nodes[place].queue_ms);
        let delay = self.below(queue_ms + 1);
        let Some(process) = &mut self.nodes[place].process else { return };
        let shard = &mut process.shards[number];
        shard.flush_is_due = false;
        let append = std::mem::take(&mut shard.slice.output().append);
        if !append.is_empty() {
            shard.appends.push_back((append, shard.office.number()));
            self.after(delay, Event::Append(place, incarnation, number));
        }
    }
}
