//! Building many keys at once leads to what applying one by one does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::indexing::build::{Digest, slices};

const KEYS: u64 = 400;

/// What a key holds, from a number: words that many share, values that several have, vectors of
/// three lengths, or nothing of a kind.
fn entry_of(version: u64, key: u64, content: u64) -> Entry {
    let value = match content % 5 {
        0 => None,
        1 => Some(format!("{}", content % 7)),
        2 => Some("\"\"".to_string()),
        _ => Some(format!("[\"common common w{} w{} w{}\"]", content % 3, content % 50, content / 50)),
    };
    let length = content as usize % 4;
    let vector: Vec<f32> = (0..length).map(|place| (content % (7 + place as u64)) as f32 + 0.5).collect();
    let vector = Some(&vector[..]).filter(|vector| !vector.is_empty());
    entry(version, &format!("{:02}:{key}", key % 13), value.as_deref(), vector)
}

/// Builds from entries with so many workers' worth of slices at a time.
fn build(indexes: &mut Indexes, entries: &[Entry], last: bool) {
    let digester = indexes.digester();
    let digests: Vec<Digest<'_>> = slices(entries).map(|slice| digester.digest(slice)).collect();
    // In another order than they come in: they must not know of each other.
    indexes.build(&digests, last).into_iter().rev().for_each(|piece| piece());
}

fn check_equal(built: &Indexes, applied: &Indexes, entries: &BTreeMap<u64, Entry>) {
    let entries_of = |indexes: &Indexes| {
        let sizes = indexes.sizes();
        [sizes.value, sizes.text, sizes.vector, sizes.order].map(|size| size.entries)
    };
    assert_eq!(entries_of(built), entries_of(applied));
    let scan = |indexes: &Indexes| {
        let page = indexes.scan(&KeyRange::default(), Parts::KEYS, 10_000, usize::MAX);
        page.entries
    };
    let same = |left: &[Entry], right: &[Entry]| {
        left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is_same(right))
    };
    assert!(same(&scan(built), &scan(applied)));
    for query in ["common", "w1", "w2 w49", "w0 common", "none"] {
        let terms = terms_of_query(query).unwrap();
        let statistics = applied.text_statistics(&terms);
        assert_eq!(built.text_statistics(&terms), statistics, "{query}");
        for matching in [Match::All, Match::Any] {
            let [left, right] =
                [built, applied].map(|indexes| search_text(indexes, &terms, matching, &statistics));
            let hits = |page: &TextPage| page.hits.iter().map(|hit| hit.score).collect::<Vec<_>>();
            assert_eq!((left.total, hits(&left)), (right.total, hits(&right)), "{query}");
            let [left, right] =
                [left, right].map(|page| page.hits.into_iter().map(|hit| hit.entry).collect::<Vec<_>>());
            assert!(same(&left, &right), "{query}");
        }
    }
    for value in entries.values().filter_map(Entry::value) {
        let hash = canonical_hash((1, 2), value);
        let [left, right] = [built, applied]
            .map(|indexes| indexes.search_value(&hash, &KeyRange::default(), 1_000, usize::MAX));
        assert!(left.total == right.total && same(&left.entries, &right.entries));
    }
    for query in [&[1.0f32][..], &[1.0, 0.5], &[1.0, 2.0, 3.0]] {
        let [left, right] = [built, applied].map(|indexes| {
            let page = indexes.search_vector(query, 500, None, &Budget::unlimited()).unwrap();
            page.hits.into_iter().map(|hit| hit.entry).collect::<Vec<_>>()
        });
        assert!(same(&left, &right));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Between the steps of a build keys change that are built already, or come.
    #[test]
    fn built_is_as_applied(
        contents in prop::collection::vec(0..5_000u64, 0..KEYS as usize),
        steps in prop::collection::vec((1..90usize, prop::collection::vec((0..KEYS, 0..5_000u64), 0..3)), 1..12),
        kinds in prop_oneof![Just(Kinds::ALL), Just(Kinds { value: false, vector: false, ..Kinds::ALL })],
    ) {
        let (mut built, mut applied) = (Indexes::new(kinds, (1, 2)), Indexes::new(kinds, (1, 2)));
        let mut entries = BTreeMap::new();
        // The walk comes by in the order of hashes, not of keys.
        let mut rest: Vec<(u64, Entry)> = (0..).zip(&contents).map(|(key, &content)| (key, entry_of(1, key, content))).collect();
        rest.sort_by_key(|(key, _)| key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut rest = rest.into_iter().peekable();
        let mut version = 1;
        for (number, (count, changes)) in steps.iter().enumerate() {
            let is_last = number + 1 == steps.len();
            let count = if is_last { usize::MAX } else { *count };
            let step: Vec<(u64, Entry)> = rest.by_ref().take(count).collect();
            let new: Vec<Entry> = step.iter().map(|(_, entry)| entry.clone()).collect();
            build(&mut built, &new, is_last);
            new.iter().for_each(|entry| set(&mut applied, None, Some(entry)));
            entries.extend(step);
            for &(key, content) in changes {
                // Of keys that are still to come the shard leaves the changes out.
                if key < contents.len() as u64 && !entries.contains_key(&key) {
                    continue;
                }
                version += 1;
                let new = Some(entry_of(version, key, content)).filter(|_| content % 4 > 0);
                let old = entries.remove(&key);
                set(&mut built, old.as_ref(), new.as_ref());
                set(&mut applied, old.as_ref(), new.as_ref());
                entries.extend(new.map(|new| (key, new)));
            }
        }
        check_equal(&built, &applied, &entries);
    }
}

#[test]
fn slices_hold_all_entries_in_order_and_little_at_a_time() {
    let large = format!("\"{}\"", "x".repeat(700_000));
    let values = |number: u64| if number % 2_000 < 3 { large.as_str() } else { "\"x\"" };
    let entries: Vec<Entry> =
        (0..10_000).map(|number| entry(number, &number.to_string(), Some(values(number)), None)).collect();
    let cut: Vec<&[Entry]> = slices(&entries).collect();
    assert!(cut.iter().all(|slice| (1..=4_096).contains(&slice.len())));
    let bytes = |slice: &&[Entry]| slice.iter().filter_map(Entry::value).map(<[u8]>::len).sum::<usize>();
    assert!(cut.iter().map(bytes).max() <= Some(1 << 20));
    let joined: Vec<&Entry> = cut.iter().copied().flatten().collect();
    assert!(joined.len() == 10_000 && joined.iter().zip(&entries).all(|(left, right)| left.is_same(right)));
    assert_eq!(slices(&[]).count(), 0);
}
