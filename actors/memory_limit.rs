//! What the system lets the process have in memory: a container's limit, or the machine.

use std::path::{Path, PathBuf};

/// A limit that is lower than `--max-memory` ends the process before that bound refuses a
/// write: what to say about it at the start, if so.
pub fn warning(memory_bytes_max: Option<u64>) -> Option<String> {
    lower_than(memory_bytes_max?, &limits(Path::new("/")))
}

/// A limit, and who sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    bytes: u64,
    of: String,
}

fn lower_than(most: u64, limits: &[Limit]) -> Option<String> {
    let lowest = limits.iter().min_by_key(|limit| limit.bytes)?;
    (lowest.bytes < most).then(|| {
        format!(
            "--max-memory {most} is more than there is: {} allows {} bytes, and where they are used up the system ends \
             the node; give about three quarters of that, since a node takes more than its entries and indexes",
            lowest.of, lowest.bytes
        )
    })
}

/// All that are known, under this root; none where the system doesn't say.
fn limits(root: &Path) -> Vec<Limit> {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let mut limits = Vec::new();
    let groups = read(root.join("proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (base, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // A group's limit holds for those within it, too. In a container its own group may be the root.
        let group = Path::new(group.trim_start_matches('/'));
        for directory in group.ancestors() {
            let bytes =
                read(root.join(base).join(directory).join(file)).and_then(|text| text.trim().parse().ok());
            let name = format!("{file} of the control group /{}", directory.display());
            limits.extend(bytes.map(|bytes| Limit { bytes, of: name }));
        }
    }
    let memory = read(root.join("proc/meminfo")).unwrap_or_default();
    let total = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    limits.extend(total.map(|kib| Limit { bytes: kib * 1024, of: "the machine's memory".to_string() }));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_a_containers_limits_and_the_machine_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(limits(root.path()), []);
        write("proc/meminfo", "MemFree: 1 kB\nMemTotal:       8000000 kB\n");
        write("proc/self/cgroup", "4:cpu,memory:/old\n3:cpu:/x\nno group\n0::/pod/node\n");
        let bytes = |limits: Vec<Limit>| limits.iter().map(|limit| limit.bytes).collect::<Vec<_>>();
        assert_eq!(bytes(limits(root.path())), [8_192_000_000]);
        write("sys/fs/cgroup/pod/node/memory.max", "max\n");
        write("sys/fs/cgroup/pod/memory.max", "500000000\n");
        write("sys/fs/cgroup/memory/old/memory.limit_in_bytes", "9223372036854771712\n");
        let all = limits(root.path());
        assert_eq!(bytes(all.clone()), [9_223_372_036_854_771_712, 500_000_000, 8_192_000_000]);
        assert_eq!(lower_than(500_000_000, &all), None);
        let said = lower_than(500_000_001, &all).unwrap();
        assert!(said.contains("memory.max of the control group /pod allows 500000000 bytes"), "{said}");
        assert_eq!(lower_than(u64::MAX, &[]), None);
    }
}
