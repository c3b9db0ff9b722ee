//! The marks of leader mode: what the product sets itself.

use datastore_utilities::bench::Mark;

/// Writes a second by etcd's best, pipelined.
pub const PIPELINED: Mark = Mark::AtLeast(25.0);
/// Writes a second by etcd's, 500 clients, one request at a time each.
pub const CLIENTS: Mark = Mark::AtLeast(4.0);
/// Seconds without an acknowledged write when the leader is killed.
pub const FAILOVER_S: Mark = Mark::AtMost(2.0);
/// Acknowledged writes that are not there afterwards.
pub const LOST: Mark = Mark::AtMost(0.0);
/// Milliseconds from a write's answer until a replica shows it.
pub const REPLICATION_MS: Mark = Mark::AtMost(10.0);
/// Processor time of a write at the node of dynamo mode that takes it, by a single node's.
pub const DYNAMO_CPU: Mark = Mark::AtMost(1.5);
/// Throughput of a node without peers by that of an earlier build.
pub const ALONE: Mark = Mark::AtLeast(0.9);

#[cfg(test)]
mod tests {
    use super::{ALONE, CLIENTS, DYNAMO_CPU, FAILOVER_S, LOST, Mark, PIPELINED, REPLICATION_MS};

    #[test]
    fn the_performance_page_has_the_same_marks() {
        let page = include_str!("../../docs/PERFORMANCE.md");
        for (what, mark) in [
            ("pipelined writes of three nodes, by etcd's best", PIPELINED),
            ("writes with 500 clients without pipelining, by etcd's best with as many", CLIENTS),
            ("seconds without an acknowledged write when the leader is killed, the longest", FAILOVER_S),
            ("acknowledged writes lost", LOST),
            ("milliseconds from a write's answer until a replica shows it, the median", REPLICATION_MS),
            ("processor time of a write at the dynamo node that takes it, by a single node's", DYNAMO_CPU),
            ("a node without peers, by an earlier build", ALONE),
        ] {
            let sign = if matches!(mark, Mark::AtLeast(_)) { '≥' } else { '≤' };
            let row = format!("| {what} | {sign} {} |\n", mark.bound());
            assert!(page.contains(&row), "{row}");
        }
    }
}
