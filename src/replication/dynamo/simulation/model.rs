//! What must be so: a fold of all writes by their versions, in which nothing is ever forgotten.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::engine::{Effect, Entry, Requests, Table, Version};
use crate::replication::dynamo::entry::{Content, Decoded, Dotted, decode};
use crate::replication::dynamo::{Origin, VersionVector};

/// What a register holds.
type Part = Option<(Version, Vec<u8>)>;

/// One key's registers.
#[derive(Clone, Debug, Default)]
struct Registers {
    value: Part,
    vector: Part,
    deleted: Option<Version>,
}

/// Keys as they must be.
#[derive(Clone, Debug, Default)]
pub struct Model {
    keys: BTreeMap<Vec<u8>, Registers>,
}

impl Model {
    pub fn apply(&mut self, dotted: &Dotted) {
        let Content::Writes(body) = &dotted.content else { return };
        for item in Requests::new(body) {
            let (ordinal, effect) = item.expect("a payload that was written");
            self.write(&effect, dotted.stamp().version(ordinal));
        }
    }

    fn write(&mut self, effect: &Effect<'_>, version: Version) {
        let registers = self.keys.entry(effect.key().to_vec()).or_default();
        let put = |register: &mut Part, bytes: &[u8]| {
            if register.as_ref().is_none_or(|(held, _)| *held < version) {
                *register = Some((version, bytes.to_vec()));
            }
        };
        match effect {
            Effect::Set { value, .. } => put(&mut registers.value, value),
            Effect::AddVector { vector, .. } => put(&mut registers.vector, vector),
            Effect::Delete { .. } => registers.deleted = registers.deleted.max(Some(version)),
        }
    }

    /// Where a shard's table is not as it must be.
    pub fn difference(&self, tables: &[&Table]) -> Option<String> {
        let placement = *tables[0].placement();
        let counted = self.keys.iter().filter(|(key, _)| self.expected(key) != (None, None)).count();
        for key in self.keys.keys() {
            let hash = placement.hash(key);
            let table = tables[placement.shard(hash)];
            let is = shown(table.get(key, hash));
            let must = self.expected(key);
            if is != must {
                let key = String::from_utf8_lossy(key);
                return Some(format!(
                    "{key} is {is:?} and must be {must:?}; its tombstone {:?}, all that was written {:?}",
                    table.tombstone(key.as_bytes(), hash),
                    self.keys.get(key.as_bytes())
                ));
            }
        }
        let keys: usize = tables.iter().map(|table| table.len()).sum();
        (keys != counted).then(|| format!("{keys} keys, and must be {counted}"))
    }

    fn expected(&self, key: &[u8]) -> (Part, Part) {
        let Some(registers) = self.keys.get(key) else { return (None, None) };
        let lives = |part: &(Version, Vec<u8>)| registers.deleted.is_none_or(|deleted| part.0 > deleted);
        (registers.value.clone().filter(lives), registers.vector.clone().filter(lives))
    }
}

/// An entry's parts.
fn shown(entry: Option<&Entry>) -> (Part, Part) {
    let owned = |(version, bytes): (Version, &[u8])| (version, bytes.to_vec());
    let value = entry.and_then(Entry::value_part).map(owned);
    (value, entry.and_then(Entry::vector_part).map(owned))
}

/// A write that a client was told of.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub version: Version,
    /// Every disk that had it is gone.
    pub is_lost: bool,
}

/// All that was ever written.
#[derive(Default)]
pub struct Registry {
    entries: BTreeMap<(Origin, u64), Bytes>,
    pub acknowledged: Vec<Acknowledged>,
    /// A test makes a dot name two entries: there is no model of that.
    pub has_forks: bool,
}

impl Registry {
    /// An entry is durable somewhere: a dot names one entry for ever.
    pub fn add(&mut self, dotted: &Dotted) {
        let payload = dotted.encode();
        let dot = (dotted.origin, dotted.sequence);
        let known = self.entries.entry(dot).or_insert_with(|| payload.clone());
        assert!(self.has_forks || *known == payload, "two entries have the dot {dot:?}");
    }

    /// What a vector must lead to.
    pub fn model(&self, vector: &VersionVector) -> Model {
        let mut model = Model::default();
        self.extend(&mut model, &VersionVector::default(), vector);
        model
    }

    /// Takes what `vector` has beyond `had` into a model.
    pub fn extend(&self, model: &mut Model, had: &VersionVector, vector: &VersionVector) {
        for row in vector.rows() {
            for sequence in had.sequence(row.origin) + 1..=row.sequence {
                let payload = self.entries.get(&(row.origin, sequence));
                let payload = payload.unwrap_or_else(|| panic!("nobody wrote {:?}", (row.origin, sequence)));
                if let Some(Decoded::Dotted(dotted)) = decode(payload) {
                    model.apply(&dotted);
                }
            }
        }
    }

    /// Disks are gone, these are left: what is on none of them is lost.
    pub fn left(&mut self, vectors: &[VersionVector]) {
        for write in &mut self.acknowledged {
            write.is_lost |= !vectors.iter().any(|vector| vector.has(write.version));
        }
    }

    /// What is on no disk any more never was: its dots may be used again.
    pub fn forget_unless_on(&mut self, vectors: &[VersionVector]) {
        self.entries.retain(|(origin, sequence), _| {
            vectors.iter().any(|vector| vector.sequence(*origin) >= *sequence)
        });
    }
}
