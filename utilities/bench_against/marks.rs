//! The marks: what the product sets itself, so that a figure can be called good
//! or bad by everyone who measures it.

use datastore_utilities::bench::Mark;

/// Connections and requests of a batch, then the least ratio to Redis without
/// indexes for a SET and for a GET.
const WITHOUT_INDEXES: [(usize, usize, f64, f64); 6] = [
    (1, 1, 1.0, 0.9),
    (1, 16, 1.3, 1.1),
    (1, 64, 2.0, 1.4),
    (50, 1, 1.3, 0.95),
    (50, 16, 2.5, 2.2),
    (50, 64, 3.5, 4.0),
];
/// With every index a SET should be as fast as Redis's wherever that is below
/// so many a second; beyond it words are the limit, and the ratio is only told.
const INDEXED_SET: f64 = 1.0;
const INDEXED_BELOW_PER_SECOND: f64 = 100_000.0;

/// Bytes of memory for a key with a 32-byte value, without and with indexes.
pub const BYTES_PER_KEY: Mark = Mark::AtMost(100.0);
/// The same with all of them.
pub const BYTES_PER_KEY_INDEXED: Mark = Mark::AtMost(250.0);
/// Memory of 1 KB texts with all indexes, as a multiple of that without.
pub const INDEXED_TEXT_RATIO: Mark = Mark::AtMost(1.5);
/// Items recovered in a second.
pub const RECOVERED_PER_SECOND: Mark = Mark::AtLeast(1_000_000.0);

/// The cells that have marks: connections and requests of a batch.
pub fn cells() -> Vec<(usize, usize)> {
    WITHOUT_INDEXES.iter().map(|(connections, pipeline, _, _)| (*connections, *pipeline)).collect()
}

/// The mark of a ratio to Redis.
pub fn of_ratio(
    is_indexed: bool,
    is_read: bool,
    (connections, pipeline): (usize, usize),
    redis_per_second: f64,
) -> Option<Mark> {
    if is_indexed {
        return (!is_read && redis_per_second < INDEXED_BELOW_PER_SECOND)
            .then_some(Mark::AtLeast(INDEXED_SET));
    }
    let row = WITHOUT_INDEXES.iter().find(|row| (row.0, row.1) == (connections, pipeline))?;
    Some(Mark::AtLeast(if is_read { row.3 } else { row.2 }))
}

#[cfg(test)]
mod tests {
    use super::{Mark, WITHOUT_INDEXES, of_ratio};

    #[test]
    fn the_performance_page_has_the_same_marks() {
        let page = include_str!("../../docs/PERFORMANCE.md");
        let columns =
            WITHOUT_INDEXES.map(|(connections, pipeline, _, _)| format!("{connections}, {pipeline}"));
        assert!(page.contains(&format!("| {} |\n", columns.join(" | "))));
        let least = |ratio: f64| {
            if ratio * 10.0 % 1.0 == 0.0 { format!("≥ {ratio:.1}") } else { format!("≥ {ratio}") }
        };
        let sets = WITHOUT_INDEXES.map(|(_, _, set, _)| least(set)).join(" | ");
        let gets = WITHOUT_INDEXES.map(|(_, _, _, get)| least(get)).join(" | ");
        assert!(page.contains(&format!("| SET | {sets} |\n")), "{sets}");
        assert!(page.contains(&format!("| GET | {gets} |\n")), "{gets}");
    }

    #[test]
    fn each_cell_has_its_mark() {
        assert_eq!(of_ratio(false, false, (50, 64), 1e6), Some(Mark::AtLeast(3.5)));
        assert_eq!(of_ratio(false, true, (50, 1), 1e6), Some(Mark::AtLeast(0.95)));
        assert_eq!(of_ratio(false, true, (7, 7), 1e6), None);
        assert_eq!(of_ratio(true, false, (50, 64), 99_999.0), Some(Mark::AtLeast(1.0)));
        assert_eq!(of_ratio(true, false, (50, 64), 100_000.0), None);
        assert_eq!(of_ratio(true, true, (1, 1), 5.0), None);
    }
}
