//! `wal dump` of dynamo mode: entries of streams, and the node's own.

use bytes::Bytes;
use datastore::replication::dynamo::entry::{Content as Carried, Decoded, Dotted, decode, forgotten, states};

use crate::failure::Failure;
use crate::wal_dump::{Content, Line, Print, Source, Wanted, damaged, members, writes};

pub fn dump_entry(index: u64, payload: &[u8], wanted: &Wanted, print: &mut Print<'_>) -> Result<(), Failure> {
    let payload = Bytes::copy_from_slice(payload);
    match decode(&payload).ok_or_else(|| damaged(index, "it is no entry of dynamo mode"))? {
        Decoded::Dotted(dotted) => of_stream(index, &dotted, wanted, print),
        Decoded::States { vector, states: encoded, .. } => {
            let entries = states(encoded).map(|entry| Some(entry?.key().to_vec()));
            let (keys, is_wanted) = counted(index, entries, wanted)?;
            let content = Content::States { keys, streams: vector.rows() };
            own(index, "states", content, is_wanted, print)
        }
        Decoded::Forgotten(encoded) => {
            let rows = forgotten(encoded).map(|row| Some(row?.0));
            let (parts, is_wanted) = counted(index, rows, wanted)?;
            own(index, "forgotten", Content::Forgotten { parts }, is_wanted, print)
        }
        Decoded::Seen(state) => {
            let content = Content::Seen { streams: state.vector.rows() };
            own(index, "seen", content, wanted.key.is_none(), print)
        }
    }
}

fn of_stream(index: u64, dotted: &Dotted, wanted: &Wanted, print: &mut Print<'_>) -> Result<(), Failure> {
    let source = Source::Stream { origin: dotted.origin, sequence: dotted.sequence };
    let stamp = dotted.stamp();
    let (op, content) = match &dotted.content {
        Carried::Writes(requests) => {
            // Beyond that the time may overflow.
            let version = |ordinal| (ordinal < dotted.requests).then(|| stamp.version(ordinal));
            return writes(index, source, requests, &version, wanted, print);
        }
        Carried::Watermark => ("watermark", Content::Nothing {}),
        Carried::Members(change) => ("members", members(index, change)?),
    };
    if wanted.key.is_some() {
        return Ok(());
    }
    print(&Line { index, source, version: Some(stamp.version(0).to_string()), op, key: None, content })
}

/// How many keys there are, and whether the one that is looked for is among them.
fn counted<K: AsRef<[u8]>>(
    index: u64,
    keys: impl Iterator<Item = Option<K>>,
    wanted: &Wanted,
) -> Result<(u64, bool), Failure> {
    let (mut count, mut is_wanted) = (0, wanted.key.is_none());
    for key in keys {
        let key = key.ok_or_else(|| damaged(index, "what came from a peer is cut short"))?;
        count += 1;
        is_wanted |= wanted.takes(key.as_ref());
    }
    Ok((count, is_wanted))
}

fn own(
    index: u64,
    op: &'static str,
    content: Content<'_>,
    is_wanted: bool,
    print: &mut Print<'_>,
) -> Result<(), Failure> {
    if !is_wanted {
        return Ok(());
    }
    print(&Line { index, source: Source::Own {}, version: None, op, key: None, content })
}

#[cfg(test)]
mod tests {
    use datastore::engine::{Entry, SameVersion, Version};
    use datastore::replication::dynamo::entry::{encode_forgotten, encode_seen, encode_state, encode_states};
    use datastore::replication::dynamo::{Row, SnapshotVector, VersionVector};

    use super::*;

    const VERSION: Version = Version { index: 7, ordinal: 3 };

    /// Columns and JSON of what an entry gives.
    fn dumped(payload: &[u8], key: Option<&str>) -> Result<Vec<(String, String)>, Failure> {
        let wanted = Wanted { indexes: 0..=u64::MAX, key: key.map(String::from) };
        let mut lines = Vec::new();
        dump_entry(5, payload, &wanted, &mut |line| {
            lines.push((line.columns(), serde_json::to_string(line).unwrap()));
            Ok(())
        })?;
        Ok(lines)
    }

    fn peers() -> VersionVector {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin: 3, sequence: 2, time: 7 });
        vector
    }

    fn two_states() -> Bytes {
        let mut encoded = bytes::BytesMut::new();
        encode_state(&mut encoded, &Entry::new(VERSION, b"a", Some(b"1"), None));
        encode_state(&mut encoded, &Entry::tombstone(VERSION, b"b"));
        encode_states(&peers(), SameVersion::Ours, &encoded)
    }

    #[test]
    fn what_a_node_took_over_is_a_line_each_and_is_found_by_its_keys() {
        let streams = r#"[{"origin":3,"sequence":2,"time":7}]"#;
        let cases = [
            (
                two_states(),
                "states\t\t2 keys",
                format!(r#""op":"states","keys":2,"streams":{streams}"#),
                true,
            ),
            (
                encode_forgotten([(&b"a"[..], VERSION)].into_iter()),
                "forgotten\t\t1 parts",
                r#""op":"forgotten","parts":1"#.to_string(),
                true,
            ),
            (
                encode_seen(&SnapshotVector { vector: peers(), ..SnapshotVector::default() }),
                &format!("seen\t\t{streams}"),
                format!(r#""op":"seen","streams":{streams}"#),
                false,
            ),
        ];
        for (payload, columns, json, has_keys) in cases {
            let expected = vec![(format!("5\t\t\t\t{columns}"), format!(r#"{{"index":5,{json}}}"#))];
            assert_eq!(dumped(&payload, None).unwrap(), expected);
            assert_eq!(dumped(&payload, Some("a")).unwrap().len(), usize::from(has_keys), "{columns}");
            assert!(dumped(&payload, Some("c")).unwrap().is_empty(), "{columns}");
        }
    }

    #[test]
    fn what_is_no_entry_is_damage_and_ends_nothing_else() {
        let states = two_states();
        let too_many = Dotted {
            origin: 3,
            sequence: 1,
            first: u64::MAX - 1,
            requests: 1,
            context: datastore::engine::Seen::default(),
            // Two requests, each a delete of "a": one more than there are times.
            content: Carried::Writes(Bytes::from_static(&[1, 0, 1, b'a', 1, 0, 1, b'a'])),
        };
        for payload in [&b"\xff"[..], &[], &states[..states.len() - 1], &too_many.encode()] {
            let failure = dumped(payload, None).unwrap_err();
            assert_eq!(failure.exit, crate::failure::Exit::Damaged);
            assert!(failure.message.starts_with("entry 5: "), "{failure}");
        }
    }
}
