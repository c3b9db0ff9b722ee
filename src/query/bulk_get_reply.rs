//! The reply of a `bulk_get`, written piece by piece: of values of the largest size together it has
//! 32 MiB, which is too much to be put together while everybody else on the thread waits.

use bytes::Bytes;

use crate::engine::Entry;
use crate::error::{Code, Error};
use crate::limits::BULK_GET_BYTES_MAX;
use crate::messaging::reply;

/// What is still to be written.
pub struct BulkGetReply {
    items: std::iter::Zip<std::vec::IntoIter<Bytes>, std::vec::IntoIter<Option<Entry>>>,
    is_first: bool,
}

impl BulkGetReply {
    /// Begins the reply, or writes why there is none. Each key's entry is the next one of its shard's.
    pub(super) fn begin(
        line: &mut Vec<u8>,
        id: &[u8],
        keys: Vec<Bytes>,
        shard_of_key: &[u16],
        mut entries: Vec<std::vec::IntoIter<Option<Entry>>>,
    ) -> Option<BulkGetReply> {
        let in_order: Vec<Option<Entry>> =
            shard_of_key.iter().map(|&shard| entries[shard as usize].next().flatten()).collect();
        let bytes: usize = in_order.iter().flatten().map(|entry| entry.value().map_or(0, <[u8]>::len)).sum();
        if bytes > BULK_GET_BYTES_MAX {
            let message = format!(
                "the values are {bytes} bytes together and a bulk_get gives at most {BULK_GET_BYTES_MAX}; ask for fewer keys"
            );
            reply::error(line, id, &Error::new(Code::BatchTooLarge, message));
            return None;
        }
        reply::bulk_get_begin(line, id);
        Some(BulkGetReply { items: keys.into_iter().zip(in_order), is_first: true })
    }

    /// Writes about so many bytes more; says whether the reply is whole.
    pub fn write(&mut self, out: &mut Vec<u8>, bytes_wanted: usize) -> bool {
        let end = out.len() + bytes_wanted;
        while out.len() < end {
            let Some((key, entry)) = self.items.next() else {
                reply::bulk_get_end(out);
                return true;
            };
            reply::bulk_get_item(out, std::mem::take(&mut self.is_first), &key, entry.as_ref());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Version;

    #[test]
    fn pieces_are_the_whole_reply_and_none_is_much_larger_than_wanted() {
        let value = format!("\"{}\"", "x".repeat(1_000));
        let version = Version { index: 1, ordinal: 0 };
        let keys: Vec<Bytes> = (0..1_000).map(|key| Bytes::from(format!("{key:04}"))).collect();
        let entries: Vec<Option<Entry>> =
            keys.iter().map(|key| Some(Entry::new(version, key, Some(value.as_bytes()), None))).collect();
        let mut line = Vec::new();
        let shards = vec![0; keys.len()];
        let mut reply =
            BulkGetReply::begin(&mut line, b"7", keys, &shards, vec![entries.into_iter()]).unwrap();
        let mut pieces = 0;
        loop {
            let before = line.len();
            let is_whole = reply.write(&mut line, 64 * 1_024);
            assert!(line.len() - before < 64 * 1_024 + 2_000);
            pieces += 1;
            if is_whole {
                break;
            }
        }
        assert!(pieces > 10, "{pieces}");
        let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let values = parsed["values"].as_array().unwrap();
        assert_eq!((values.len(), &parsed["id"]), (1_000, &serde_json::json!(7)));
        assert_eq!(values[999]["key"], "0999");
    }

    #[test]
    fn a_bulk_get_of_nothing_is_whole_at_once() {
        let mut line = Vec::new();
        let mut reply = BulkGetReply::begin(&mut line, b"", Vec::new(), &[], Vec::new()).unwrap();
        assert!(reply.write(&mut line, 10));
        assert_eq!(line, b"{\"ok\":true,\"values\":[]}\n");
    }
}
