//! A node's health as a frame.
//!
//! ```text
//!   condition │ flags │ indexed, in thousandths │ oldest sync │ pause: term │ age │ length
//!       1         1               2                  8               8         8      8     bytes
//! ```
//!
//! Times are in milliseconds. Flags: 1, the disk is stalled; 2, it is full.

use bytes::{BufMut, BytesMut};

use super::frame_reader::Reader;
use super::peer_version::{presence, present};
use crate::replication::health::{DiskHealth, Health};
use crate::replication::policy::DiskPause;

/// The frame's kind.
pub(super) const HEALTH: u8 = 66;

const FLAG_STALLED: u8 = 1;
const FLAG_FULL: u8 = 2;

pub(super) fn put(out: &mut BytesMut, health: &Health) {
    let Health { condition, disk, indexed_per_mille, pause } = health;
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    out.put_u8(HEALTH);
    out.put_u8(presence(*condition));
    out.put_u8(flag(FLAG_STALLED, disk.is_stalled) | flag(FLAG_FULL, disk.is_full));
    out.put_u16_le(*indexed_per_mille);
    for number in [disk.oldest_sync_ms, pause.term, pause.age_ms, pause.length_ms] {
        out.put_u64_le(number);
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Health> {
    let condition = present(reader.u8()?)?;
    let flags = reader.u8().filter(|flags| flags & !(FLAG_STALLED | FLAG_FULL) == 0)?;
    let indexed_per_mille = u16::from_le_bytes(reader.take(2)?.try_into().ok()?);
    let oldest_sync_ms = reader.u64()?;
    let disk =
        DiskHealth { oldest_sync_ms, is_stalled: flags & FLAG_STALLED != 0, is_full: flags & FLAG_FULL != 0 };
    let pause = DiskPause { term: reader.u64()?, age_ms: reader.u64()?, length_ms: reader.u64()? };
    Some(Health { condition, disk, indexed_per_mille, pause })
}
