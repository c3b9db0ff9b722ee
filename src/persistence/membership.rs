//! "cluster.json": which cluster a directory belongs to and who its members are.
//!
//! ```text
//! {"format":1,"cluster":"…32 hex digits…","founder":1,
//!  "members":[{"node_id":1,"host":"127.0.0.1","port":9000,"node":"…32 hex digits…"},
//!             {"node_id":2,"host":"127.0.0.1","port":9001,"node":null}, …]}
//! ```
//!
//! The founder writes it when it makes its directory; any other node writes it
//! when the founder adopts it. A member's `node` is the identity of its
//! directory, filled in when it is first met: from then on a member that comes
//! with another one has lost its data, and what it promised with it.

use std::io;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, ROOT_DIRECTORY, SyncPurpose, read_whole, remove_if_present};
use super::identity::{IdentityError, NodeUuid};

/// The file's name.
pub const MEMBERSHIP_FILE: &str = "cluster.json";
const TEMPORARY_FILE: &str = "cluster.new";
const FORMAT: u32 = 1;

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

/// A cluster as one of its members knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    format: u32,
    /// The cluster's name, 32 hex digits drawn at random by its founder.
    pub cluster: String,
    /// The node that formed it, the only one that adopts the others.
    pub founder: u64,
    /// All members, ascending by node id.
    pub members: Vec<Member>,
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
    /// A new cluster.
    pub fn new(cluster: String, founder: u64, mut members: Vec<Member>) -> Membership {
        members.sort_by_key(|member| member.node_id);
        Membership { format: FORMAT, cluster, founder, members }
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
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| IdentityError::Damaged { file: MEMBERSHIP_FILE, reason: error.to_string() })?;
        bytes.push(b'\n');
        remove_if_present(disk, TEMPORARY_FILE)?;
        let mut file = disk.create_new(TEMPORARY_FILE)?;
        disk.write_at(&mut file, 0, &bytes)?;
        disk.sync(&mut file, SyncPurpose::Other)?;
        disk.rename(TEMPORARY_FILE, MEMBERSHIP_FILE)?;
        Ok(disk.sync_directory(ROOT_DIRECTORY)?)
    }

    /// A member by its number.
    pub fn member(&self, node_id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.node_id == node_id)
    }

    /// The numbers of all members, ascending.
    pub fn node_ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.node_id).collect()
    }

    /// Notes the identity of a member's directory. Says whether that was news.
    pub fn meet(&mut self, node_id: u64, node: NodeUuid) -> bool {
        match self.members.iter_mut().find(|member| member.node_id == node_id) {
            Some(member) if member.node.is_none() => {
                member.node = Some(node);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::MemoryDisk;

    fn membership() -> Membership {
        let member = |node_id| Member { node_id, host: "127.0.0.1".into(), port: 9000, node: None };
        Membership::new("0123".repeat(8), 1, vec![member(2), member(1)])
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
        assert_eq!(stored.node_ids(), [1, 2]);
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
        put(r#"{"format":2,"anything":1}"#);
        assert!(matches!(Membership::load(&disk), Err(IdentityError::NewerFormat { found: 2, .. })));
        put(r#"{"format":1,"cluster":"x"}"#);
        assert!(matches!(Membership::load(&disk), Err(IdentityError::Damaged { .. })));
    }
}
