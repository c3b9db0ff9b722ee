//! "identity.json": what a data directory is, written once and never again.
//!
//! ```text
//! {"format":1,"node":"…32 hex digits…","cluster":null,"mode":"single",
//!  "placement_seed":["…16 hex digits…","…"],"created_by":"0.1.0"}
//! ```
//!
//! It is written last when a directory is made: the log's first segment is
//! durable before it. So where there is an identity there must be a log, and a
//! log that is gone is damage; and a log without an identity that has a frame
//! in it has lost its identity. Neither ever starts empty.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, ROOT_DIRECTORY, SyncPurpose, read_whole, remove_if_present};

/// The file's name.
pub const IDENTITY_FILE: &str = "identity.json";
const TEMPORARY_FILE: &str = "identity.new";
/// The newest format of the directory that this version reads and writes.
pub const IDENTITY_FORMAT: u32 = 1;

/// A node's 128-bit name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeUuid(pub [u8; 16]);

impl NodeUuid {
    /// Reads what `Display` writes: 32 hex digits.
    pub fn parse(text: &str) -> Option<NodeUuid> {
        parse_hex(text, 32).ok().map(|number| NodeUuid(number.to_be_bytes()))
    }
}

impl fmt::Display for NodeUuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for NodeUuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node that the directory belongs to, drawn at random when it was made.
    pub node: NodeUuid,
    /// Always `None`: the cluster stands in [`super::MEMBERSHIP_FILE`], since it is known later.
    pub cluster: Option<String>,
    /// The mode of replication.
    pub mode: String,
    /// Places keys into buckets, for as long as the directory lives.
    pub placement_seed: (u64, u64),
    /// The version that made the directory.
    pub created_by: String,
}

/// The file as it stands. Unknown fields are refused: they are a newer format's.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    node: String,
    cluster: Option<String>,
    mode: String,
    placement_seed: [String; 2],
    created_by: String,
}

#[derive(Deserialize)]
struct StoredFormat {
    format: u32,
}

/// Why an identity can't be read or written.
#[derive(Debug)]
pub enum IdentityError {
    /// The disk failed.
    Io(io::Error),
    /// The file is not what this format allows.
    Damaged {
        /// Which file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A newer version made the directory.
    NewerFormat {
        /// Which file says so.
        file: &'static str,
        /// The directory's format.
        found: u32,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Io(error) => write!(formatter, "the directory's identity: {error}"),
            IdentityError::Damaged { file, reason } => write!(formatter, "{file} is damaged: {reason}"),
            IdentityError::NewerFormat { file, found } => write!(
                formatter,
                "{file} has format {found}, this version reads up to {IDENTITY_FORMAT}: \
                 start the version that wrote it"
            ),
        }
    }
}

impl std::error::Error for IdentityError {}

impl From<io::Error> for IdentityError {
    fn from(error: io::Error) -> IdentityError {
        IdentityError::Io(error)
    }
}

fn damaged(reason: impl fmt::Display) -> IdentityError {
    IdentityError::Damaged { file: IDENTITY_FILE, reason: reason.to_string() }
}

fn parse_hex(text: &str, digits: usize) -> Result<u128, IdentityError> {
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(damaged(format_args!("expected {digits} hex digits, found {text:?}")));
    }
    u128::from_str_radix(text, 16).map_err(damaged)
}

impl Identity {
    /// The directory's identity, `None` when it has none yet.
    pub fn load<D: Disk>(disk: &D) -> Result<Option<Identity>, IdentityError> {
        let bytes = match read_whole(disk, IDENTITY_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let StoredFormat { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format > IDENTITY_FORMAT {
            return Err(IdentityError::NewerFormat { file: IDENTITY_FILE, found: format });
        }
        let stored: Stored = serde_json::from_slice(&bytes).map_err(damaged)?;
        let [first, second] = &stored.placement_seed;
        Ok(Some(Identity {
            node: NodeUuid(parse_hex(&stored.node, 32)?.to_be_bytes()),
            cluster: stored.cluster,
            mode: stored.mode,
            placement_seed: (parse_hex(first, 16)? as u64, parse_hex(second, 16)? as u64),
            created_by: stored.created_by,
        }))
    }

    /// Writes the identity durably: all of it or nothing.
    pub(super) fn store<D: Disk>(&self, disk: &D) -> Result<(), IdentityError> {
        let stored = Stored {
            format: IDENTITY_FORMAT,
            node: self.node.to_string(),
            cluster: self.cluster.clone(),
            mode: self.mode.clone(),
            placement_seed: [self.placement_seed.0, self.placement_seed.1].map(|half| format!("{half:016x}")),
            created_by: self.created_by.clone(),
        };
        let mut bytes = serde_json::to_vec(&stored).map_err(damaged)?;
        bytes.push(b'\n');
        remove_if_present(disk, TEMPORARY_FILE)?;
        let mut file = disk.create_new(TEMPORARY_FILE)?;
        disk.write_at(&mut file, 0, &bytes)?;
        disk.sync(&mut file, SyncPurpose::Other)?;
        disk.rename(TEMPORARY_FILE, IDENTITY_FILE)?;
        Ok(disk.sync_directory(ROOT_DIRECTORY)?)
    }
}
