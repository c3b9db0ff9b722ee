//! Reading a peer's frame field by field.
//!
//! What is kept of a frame is copied at its exact size ([`Reader::payload`]): an
//! entry stays in memory for long, and must not keep the buffer that it came in,
//! or its neighbours.

use bytes::{Buf, Bytes};

use crate::replication::message::NodeId;

/// A frame's fields, one after the other; `None` where there are too few bytes.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next so many bytes, where they are used at once.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    /// A byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes.try_get_u8().ok()
    }

    /// A byte that is 0 or 1.
    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// 8 bytes, little-endian.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes.try_get_u64_le().ok()
    }

    fn length(&mut self) -> Option<usize> {
        self.bytes.try_get_u32_le().ok().map(|length| length as usize)
    }

    /// Bytes with their length before them, where they are used at once.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    /// The same, in memory of their own.
    pub(super) fn payload(&mut self) -> Option<Bytes> {
        self.bytes().map(Bytes::copy_from_slice)
    }

    /// Items with their number before them.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        // Grows as items are found: a count alone must not cost its memory.
        let count = self.length()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    /// Nodes' numbers.
    pub(super) fn ids(&mut self) -> Option<Vec<NodeId>> {
        self.list(Reader::u64)
    }
}
