//! The beginning: a directory becomes a data directory.

use super::disk::{Disk, SyncPurpose};
use super::identity::{Identity, IdentityError};
use super::log_report::LogOptions;
use super::recovery;
use super::recovery_report::OpenError;
use super::segment::{Creation, SEGMENT_HEADER_BYTES, SegmentHeader, create_segment, segment_name};

/// Makes a new data directory: the log's first segment, then the identity. A
/// crash in between leaves a directory that this function may be called for
/// again; one that has an identity, or frames, is left as it is.
pub fn initialise<D: Disk>(
    disk: &D,
    options: &LogOptions,
    identity: &Identity,
    salt: u64,
) -> Result<(), OpenError> {
    if Identity::load(disk)?.is_some() {
        return Err(OpenError::AlreadyInitialised);
    }
    recovery::remove_unused_log(disk)?;
    let header = SegmentHeader {
        flags: 0,
        node: identity.node,
        number: 1,
        salt,
        predecessor: 0,
        predecessor_length: 0,
        first_frame: 1,
        first_index: 1,
        predecessor_crc: 0,
    };
    let creation = Creation {
        header,
        frames: Vec::new(),
        bytes: options.segment_bytes.max(SEGMENT_HEADER_BYTES as u64),
        purpose: SyncPurpose::Other,
        use_spare: false,
        #[cfg(test)]
        mutant: None,
    };
    create_segment(disk, &creation)
        .map_err(|error| OpenError::Io { file: segment_name(1), source: error.source })?;
    identity.store(disk).map_err(|error: IdentityError| OpenError::Identity(error))
}
