//! "cluster.json": which cluster a directory belongs to and who its members are.
//!
//! ```text
//! {"format":1,"cluster":"…32 hex digits…","founder":1,
//!  "members":[{"node_id":1,"host":"127.0.0.1","port":9000,"node":"…32 hex digits…"},
//!             {"node_id":2,"host":"127.0.0.1","port":9001,"node":null}, …]}
//!
//! {"format":2,"cluster":"…","founder":1,"epochs":["…"],"forced":{"through":70,"committed":30,"terms":[[31,1],[40,3]]},
//!  "first_vote":[3,1],"base":{…},"configuration":{…}}
//! ```
//!
//! The founder writes it when it makes its directory; any other node writes it
//! when it is adopted. A member's `node` is the identity of its directory, filled
//! in when it is first met: from then on a member that comes with another one has
//! lost its data, and what it promised with it.
//!
//! Members change by entries of the log. What counts is there: `base` is what the
//! first of them changes, and `configuration` the newest one that this node has
//! applied, by which it knows its peers before it has read its log again.
//!
//! `epochs` has a name, drawn at random, for each time the voters were set by
//! force. A node whose list is the beginning of another one's was left behind by
//! that; two lists of which neither begins the other were forced apart.
//!
//! While nothing of that has happened the file is of format 1, which an earlier
//! version can read.

use std::io;

use serde::{Deserialize, Serialize};

use super::configuration::{Configuration, Members};
use super::disk::{Disk, ROOT_DIRECTORY, SyncPurpose, read_whole, remove_if_present};
use super::identity::{IdentityError, NodeUuid};

/// The file's name.
pub const MEMBERSHIP_FILE: &str = "cluster.json";
const TEMPORARY_FILE: &str = "cluster.new";
/// Written while all members vote and have from the start.
const FORMAT_PLAIN: u32 = 1;
const FORMAT: u32 = 2;

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number in the cluster.
    pub node_id: u64,
    /// Where peers and clients reach it.
    pub host: String,
    /// Where peers and clients reach it.
    pub port: u16,
    /// Its directory's identity; `None` before it was met.
    pub node: Option<NodeUuid>,
}

/// What the log held when its voters were set by force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forced {
    /// Its last entry: members that entries up to it name count no more. `None`:
    /// the next start finds out, before anything else.
    pub through: Option<u64>,
    /// The last entry that was known to be committed: every node that has applied it has the same.
    #[serde(default)]
    pub committed: u64,
    /// From which entry on which term, up to the last one: by it another node knows
    /// whether what it has applied beyond `committed` is in that log.
    pub terms: Vec<(u64, u64)>,
}

impl Forced {
    /// Whether an entry of this index and term is in the log that was forced.
    pub fn has(&self, index: u64, term: u64) -> bool {
        if index <= self.committed {
            return self.through.is_some();
        }
        let run = self.terms.iter().rev().find(|(from, _)| *from <= index);
        self.through.is_some_and(|through| index <= through) && run.is_some_and(|(_, is)| *is == term)
    }
}

/// A cluster as one of its members knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The cluster's name, 32 hex digits drawn at random by its founder.
    pub cluster: String,
    /// The node that formed it, the only one that adopts those that it named then.
    pub founder: u64,
    /// One name for each time the voters were set by force, the last one last.
    pub epochs: Vec<String>,
    /// The last time that they were.
    pub forced: Option<Forced>,
    /// The term that the leader had that adopted this node, and whom this node may
    /// vote for in it: that leader.
    pub first_vote: (u64, u64),
    /// Who belonged to it when it was founded, or forced.
    pub base: Configuration,
    /// Who does, as far as this node has applied the log.
    pub configuration: Configuration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    format: u32,
    cluster: String,
    founder: u64,
    members: Vec<Member>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    format: u32,
    cluster: String,
    founder: u64,
    epochs: Vec<String>,
    forced: Option<Forced>,
    first_vote: (u64, u64),
    base: Configuration,
    configuration: Configuration,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Plain(Plain),
    Whole(Box<Whole>),
}

impl Serialize for Membership {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Membership { cluster, founder, epochs, forced, first_vote, base, configuration } = self.clone();
        if self.is_plain() {
            return Plain { format: FORMAT_PLAIN, cluster, founder, members: configuration.nodes }
                .serialize(serializer);
        }
        Whole { format: FORMAT, cluster, founder, epochs, forced, first_vote, base, configuration }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Membership {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Membership, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Plain(Plain { cluster, founder, members, .. }) => {
                let voters = members.iter().map(|member| member.node_id).collect();
                let members_of = Members { voters, ..Members::default() };
                let configuration = Configuration { index: 0, members: members_of, nodes: members };
                Membership::of(cluster, founder, configuration)
            }
            Stored::Whole(whole) => {
                let Whole { cluster, founder, epochs, forced, first_vote, base, configuration, .. } = *whole;
                Membership { cluster, founder, epochs, forced, first_vote, base, configuration }
            }
        })
    }
}

impl Serialize for NodeUuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeUuid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<NodeUuid, D::Error> {
        let text = String::deserialize(deserializer)?;
        NodeUuid::parse(&text).ok_or_else(|| serde::de::Error::custom("a node's identity is 32 hex digits"))
    }
}

impl Membership {
    /// A new cluster of these nodes.
    pub fn new(cluster: String, founder: u64, nodes: Vec<Member>) -> Membership {
        Membership::of(cluster, founder, Configuration::founding(nodes, founder))
    }

    /// As an earlier version founds one: of two nodes neither hosts a witness.
    pub fn without_witness(cluster: String, founder: u64, nodes: Vec<Member>) -> Membership {
        let mut base = Configuration::founding(nodes, founder);
        base.members.voters = base.node_ids();
        Membership::of(cluster, founder, base)
    }

    fn of(cluster: String, founder: u64, base: Configuration) -> Membership {
        let configuration = base.clone();
        let (epochs, forced, first_vote) = (Vec::new(), None, (0, 0));
        Membership { cluster, founder, epochs, forced, first_vote, base, configuration }
    }

    /// Whether format 1 can say all of it, and an earlier version can be a member.
    pub fn is_plain(&self) -> bool {
        let Configuration { index, members, .. } = &self.configuration;
        let all_vote = Members { voters: self.configuration.node_ids(), ..Members::default() };
        self.epochs.is_empty() && self.first_vote == (0, 0) && *index == 0 && *members == all_vote
    }

    /// The directory's membership, `None` when it belongs to no cluster.
    pub fn load<D: Disk>(disk: &D) -> Result<Option<Membership>, IdentityError> {
        let bytes = match read_whole(disk, MEMBERSHIP_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let damaged = |reason: String| IdentityError::Damaged { file: MEMBERSHIP_FILE, reason };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if format > FORMAT {
            return Err(IdentityError::NewerFormat { file: MEMBERSHIP_FILE, found: format });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Writes it durably: all of it or nothing.
    pub fn store<D: Disk>(&self, disk: &D) -> Result<(), IdentityError> {
        self.prepare(disk)?;
        Membership::publish_prepared(disk)
    }

    /// Writes it durably, and leaves what is there in force: see [`Membership::publish_prepared`].
    pub fn prepare<D: Disk>(&self, disk: &D) -> Result<(), IdentityError> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| IdentityError::Damaged { file: MEMBERSHIP_FILE, reason: error.to_string() })?;
        bytes.push(b'\n');
        remove_if_present(disk, TEMPORARY_FILE)?;
        let mut file = disk.create_new(TEMPORARY_FILE)?;
        disk.write_at(&mut file, 0, &bytes)?;
        Ok(disk.sync(&mut file, SyncPurpose::Other)?)
    }

    /// What was prepared last takes the place of what is there.
    pub fn publish_prepared<D: Disk>(disk: &D) -> Result<(), IdentityError> {
        disk.rename(TEMPORARY_FILE, MEMBERSHIP_FILE)?;
        Ok(disk.sync_directory(ROOT_DIRECTORY)?)
    }

    /// A member by its number.
    pub fn member(&self, node_id: u64) -> Option<&Member> {
        self.configuration.node(node_id)
    }

    /// The numbers of all members, ascending.
    pub fn node_ids(&self) -> Vec<u64> {
        self.configuration.node_ids()
    }

    /// Notes the identity of a member's directory. Says whether that was news.
    pub fn meet(&mut self, node_id: u64, node: NodeUuid) -> bool {
        let unmet = |member: &&mut Member| member.node_id == node_id && member.node.is_none();
        let Some(member) = self.configuration.nodes.iter_mut().find(unmet) else { return false };
        member.node = Some(node);
        if self.configuration.index == 0 {
            self.base = self.configuration.clone();
        }
        true
    }

    /// An entry of the log has changed the members. Directories that were met stay
    /// known; but a node that listens and voted before is a new one of that number.
    pub fn changed(&mut self, mut to: Configuration) {
        let before = &self.configuration;
        for node in to.nodes.iter_mut().filter(|node| node.node.is_none()) {
            let (id, votes) = (node.node_id, to.members.votes(node.node_id));
            if votes || !before.members.votes(id) {
                node.node = before.node(id).and_then(|known| known.node);
            }
        }
        self.configuration = to;
    }

    /// Whether the voters of the log's entries up to `index` were set aside by force.
    pub fn is_forced_past(&self, index: u64) -> bool {
        self.forced.as_ref().and_then(|forced| forced.through).is_some_and(|through| index <= through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::MemoryDisk;

    fn membership() -> Membership {
        let member = |node_id| Member { node_id, host: "127.0.0.1".into(), port: 9000, node: None };
        Membership::new("0123".repeat(8), 1, vec![member(2), member(3), member(1)])
    }

    #[test]
    fn it_comes_back_as_it_was_stored() {
        let disk = MemoryDisk::new();
        assert_eq!(Membership::load(&disk).unwrap(), None);
        let mut stored = membership();
        assert!(stored.meet(2, NodeUuid([7; 16])) && !stored.meet(2, NodeUuid([8; 16])));
        stored.store(&disk).unwrap();
        stored.store(&disk).unwrap();
        assert_eq!(Membership::load(&disk).unwrap(), Some(stored.clone()));
        assert_eq!(stored.node_ids(), [1, 2, 3]);
        assert_eq!(stored.member(2).unwrap().node, Some(NodeUuid([7; 16])));
    }

    #[test]
    fn a_newer_format_and_damage_are_told_apart() {
        let disk = MemoryDisk::new();
        let put = |text: &str| {
            let _ = disk.remove(MEMBERSHIP_FILE);
            let mut file = disk.create_new(MEMBERSHIP_FILE).unwrap();
            disk.write_at(&mut file, 0, text.as_bytes()).unwrap();
        };
        put(r#"{"format":3,"anything":1}"#);
        assert!(matches!(Membership::load(&disk), Err(IdentityError::NewerFormat { found: 3, .. })));
        put(r#"{"format":1,"cluster":"x"}"#);
        assert!(matches!(Membership::load(&disk), Err(IdentityError::Damaged { .. })));
    }

    fn text(membership: &Membership) -> String {
        serde_json::to_string(membership).unwrap()
    }

    #[test]
    fn what_an_earlier_version_understands_is_written_as_that_wrote_it() {
        let mut membership = membership();
        assert!(text(&membership).starts_with(r#"{"format":1,"cluster":"0123"#));
        assert_eq!(serde_json::from_str::<Membership>(&text(&membership)).unwrap(), membership);
        let mut to = membership.configuration.clone();
        to.index = 9;
        membership.changed(to);
        membership.epochs.push("e".into());
        membership.forced = Some(Forced { through: Some(7), committed: 5, terms: vec![(1, 1)] });
        assert!(text(&membership).starts_with(r#"{"format":2,"#));
        assert_eq!(serde_json::from_str::<Membership>(&text(&membership)).unwrap(), membership);
        let two = Membership::new("c".into(), 1, membership.configuration.nodes[..2].to_vec());
        assert!(text(&two).starts_with(r#"{"format":2,"#), "a witness is news");
    }

    #[test]
    fn a_directory_stays_known_while_its_node_stays() {
        let mut membership = membership();
        (1..=3).for_each(|id| assert!(membership.meet(id, NodeUuid([id as u8; 16]))));
        let known = |membership: &Membership, id| membership.member(id).and_then(|member| member.node);
        let plain = self::membership().configuration;
        membership.changed(Configuration { index: 5, ..plain.clone() });
        assert_eq!(known(&membership, 3), Some(NodeUuid([3; 16])));
        // Removed and added again, with what happened between installed as a snapshot.
        let mut again = Configuration { index: 9, ..plain };
        again.members = Members { voters: vec![1, 2], learners: vec![3], ..Members::default() };
        membership.changed(again.clone());
        assert_eq!((known(&membership, 2), known(&membership, 3)), (Some(NodeUuid([2; 16])), None));
        assert!(membership.meet(3, NodeUuid([9; 16])));
        again.members = Members { voters: vec![1, 2, 3], ..Members::default() };
        membership.changed(Configuration { index: 10, ..again });
        assert_eq!(known(&membership, 3), Some(NodeUuid([9; 16])), "a learner that becomes a voter");
    }

    #[test]
    fn entries_of_a_forced_log_are_known_by_index_and_term() {
        let forced = Forced { through: Some(70), committed: 30, terms: vec![(31, 1), (40, 3)] };
        assert!(forced.has(39, 1) && forced.has(40, 3) && forced.has(70, 3));
        assert!(!forced.has(40, 1) && !forced.has(71, 3) && forced.has(7, 1));
    }
}
