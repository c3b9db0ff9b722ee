//! What a snapshot will take on the disk, reckoned from what the tables hold.
//!
//! A value is its own text, in memory as in a snapshot. A number of a vector is 4 bytes in memory; its text has up to
//! 9 digits that matter, a sign, a point, zeroes in front and a comma. Compression takes the text nearly down to what
//! is in its digits, but no further:
//!
//! ```text
//! bytes of the file for each of vectors    plain   zstd
//! 1,536 numbers, uniform in ±1              2.8    1.16
//! 1,536 numbers, of length 1                3.1    1.12
//! reckoned                                  3.5    1.5
//! ```
//!
//! What the last snapshot took in comparison is known better than that, so the reckoning is corrected by it.

/// What the tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Entries, tombstones among them.
    pub entries: u64,
    /// What they occupy, vectors among it.
    pub memory_bytes: u64,
    /// What vectors occupy.
    pub vector_bytes: u64,
}

/// Field names, versions and braces of a line, beyond what an entry has beside its parts in memory.
const LINE_EXTRA_BYTES: u64 = 32;
/// A vector's text compared to its bytes, in eighths.
const PLAIN_EIGHTHS: u64 = 28;
/// The same, compressed.
const COMPRESSED_EIGHTHS: u64 = 12;

impl Contents {
    /// What a snapshot of them takes at most, as far as that can be reckoned.
    pub fn snapshot_bytes(&self, compressed: bool) -> u64 {
        let eighths = if compressed { COMPRESSED_EIGHTHS } else { PLAIN_EIGHTHS };
        let vectors = self.vector_bytes.saturating_mul(eighths) / 8;
        let others = self.memory_bytes.saturating_sub(self.vector_bytes);
        vectors.saturating_add(others).saturating_add(self.entries.saturating_mul(LINE_EXTRA_BYTES))
    }
}

/// So many times what was reckoned a snapshot may be held to take.
const CORRECTION_MAX: u64 = 2;
/// A smaller snapshot is mostly first line and last line.
const TELLING_BYTES: u64 = 1024 * 1024;

/// What the last snapshot took, and what was reckoned for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTook {
    /// What it took, or would have taken, if it failed half-way.
    pub bytes: u64,
    /// What [`Contents::snapshot_bytes`] had said.
    pub reckoned_bytes: u64,
}

impl SnapshotTook {
    /// The reckoning for a later one, corrected by this one: by one that was large enough to tell. It is an upper
    /// bound, so that no more than double of it is believed: much may be deleted while a snapshot is made, and of one
    /// that failed the first entries may be the largest.
    pub fn correct(&self, reckoned_bytes: u64) -> u64 {
        if self.reckoned_bytes < TELLING_BYTES {
            return reckoned_bytes;
        }
        let corrected = u128::from(reckoned_bytes) * u128::from(self.bytes) / u128::from(self.reckoned_bytes);
        u64::try_from(corrected).unwrap_or(u64::MAX).min(reckoned_bytes.saturating_mul(CORRECTION_MAX))
    }

    /// One that came as far as `bytes` with so many of all entries.
    pub fn in_part(bytes: u64, entries: u64, contents: &Contents, compressed: bool) -> SnapshotTook {
        let reckoned_bytes = contents.snapshot_bytes(compressed);
        let all = contents.entries.max(entries);
        let whole = u128::from(bytes) * u128::from(all) / u128::from(entries.max(1));
        SnapshotTook { bytes: u64::try_from(whole).unwrap_or(u64::MAX), reckoned_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Entry, Version};
    use crate::persistence::drop_rate::next_random;
    use crate::persistence::{MemoryDisk, NodeUuid, SnapshotFile, SnapshotHeader};

    const ENTRIES: u64 = 300;

    /// Entries as they come, and what a snapshot of them takes and is reckoned to take.
    fn taken(
        compressed: bool,
        mut part: impl FnMut(&mut u64) -> (Option<String>, Option<Vec<f32>>),
    ) -> (u64, u64) {
        let header = SnapshotHeader { node: NodeUuid([7; 16]), after: 0 };
        let mut file = SnapshotFile::create(MemoryDisk::new(), header, compressed.then_some(1)).unwrap();
        let (mut contents, mut random) = (Contents::default(), 5);
        for index in 1..=ENTRIES {
            let (value, vector) = part(&mut random);
            let version = Version { index, ordinal: 0 };
            let key = format!("key-{index}");
            let value = value.as_ref().map(String::as_bytes);
            let entry = Entry::new(version, key.as_bytes(), value, vector.as_deref());
            contents.entries += 1;
            contents.memory_bytes += entry.memory_bytes() as u64;
            contents.vector_bytes += vector.map_or(0, |vector| 4 * vector.len() as u64);
            file.write_entry(&entry).unwrap();
        }
        (file.finish(ENTRIES, b"").unwrap().file_bytes, contents.snapshot_bytes(compressed))
    }

    /// Between -1 and 1.
    fn unit(random: &mut u64) -> f64 {
        next_random(random) as f64 / u64::MAX as f64 * 2.0 - 1.0
    }

    #[test]
    fn what_a_snapshot_takes_is_reckoned_with_a_margin_and_with_no_more_than_it_needs() {
        for compressed in [false, true] {
            let expect = |what: &str, (took, reckoned): (u64, u64)| {
                println!("{what}, compressed {compressed}: took {took}, reckoned {reckoned}");
                assert!(took <= reckoned, "{what} takes {took} and is reckoned at {reckoned}");
                assert!(reckoned <= took * 8 / 5, "{what} is reckoned at {reckoned} and takes {took}");
            };
            let vector = |random: &mut u64, length: usize, scale: f64| -> Vec<f32> {
                (0..length).map(|_| (unit(random) * scale) as f32).collect()
            };
            expect("uniform vectors", taken(compressed, |random| (None, Some(vector(random, 1_536, 1.0)))));
            // As models give them: of length 1, so that most numbers begin with zeroes.
            expect("normal vectors", taken(compressed, |random| (None, Some(vector(random, 1_536, 0.044)))));
            expect("short vectors", taken(compressed, |random| (None, Some(vector(random, 64, 0.2)))));
            let letters = |random: &mut u64, length: usize| -> String {
                let letter = |random: &mut u64| char::from(b'#' + (next_random(random) % 57) as u8);
                format!("\"{}\"", (0..length).map(|_| letter(random)).collect::<String>().replace('\\', "x"))
            };
            expect("letters", taken(compressed, |random| (Some(letters(random, 3_000)), None)));
            let both = |random: &mut u64| (Some(letters(random, 500)), Some(vector(random, 384, 0.1)));
            expect("both", taken(compressed, both));
        }
    }

    #[test]
    fn what_the_last_one_took_corrects_the_next() {
        let contents = Contents { entries: 10_000, memory_bytes: 10_000_000, vector_bytes: 0 };
        assert_eq!(SnapshotTook { bytes: 1 << 20, reckoned_bytes: 1 << 21 }.correct(1_000), 500);
        assert_eq!(SnapshotTook { bytes: 150, reckoned_bytes: 0 }.correct(1_000), 1_000, "of an empty node");
        let in_part = SnapshotTook::in_part(2_000_000, 1_000, &contents, false);
        assert_eq!((in_part.bytes, in_part.reckoned_bytes), (20_000_000, 10_320_000));
        assert_eq!(SnapshotTook::in_part(u64::MAX, 0, &contents, false).correct(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_snapshot_that_says_little_about_the_next_corrects_little() {
        // Nearly all was deleted while it was made.
        let took = SnapshotTook { bytes: 5_000 << 20, reckoned_bytes: 2 << 20 };
        assert_eq!(took.correct(200 << 20), 400 << 20);
        // It failed at its first entry, the largest of all.
        let contents = Contents { entries: 1_000_000, memory_bytes: 100 << 20, vector_bytes: 0 };
        let took = SnapshotTook::in_part(8 << 20, 1, &contents, false);
        assert_eq!(took.correct(100 << 20), 200 << 20);
        let took = SnapshotTook { bytes: 50 << 20, reckoned_bytes: 100 << 20 };
        assert_eq!(took.correct(200 << 20), 100 << 20);
    }
}
