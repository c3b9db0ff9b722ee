//! What the figures were measured on, as far as they depend on it.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine.
#[derive(Serialize)]
pub struct Machine {
    /// Cores that the process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The system and its version.
    pub kernel: String,
    /// The kind of file system that the data is on.
    pub file_system: String,
}

impl Machine {
    /// Looks at this machine; `directory` is where the data goes.
    pub fn look(directory: &Path) -> Result<Machine, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let meminfo = read("/proc/meminfo")?;
        let kib = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let directory = directory
            .canonicalize()
            .map_err(|error| format!("the directory {}: {error}", directory.display()))?;
        let mounts = read("/proc/self/mountinfo")?;
        Ok(Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or_default() * 1024,
            kernel: format!("Linux {}", version(read("/proc/sys/kernel/osrelease")?.trim())),
            file_system: file_system(&mounts, &directory).unwrap_or_else(|| "unknown".into()),
        })
    }

    /// Makes the directory of a bench and looks at the machine. A directory in memory,
    /// where a sync costs nothing, is good enough for a quick run only.
    pub fn prepare(directory: &Path, is_quick: bool) -> Result<Machine, String> {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let machine = Machine::look(directory)?;
        if machine.is_in_memory() {
            let why = format!("{} is in memory, where a sync costs nothing", directory.display());
            if !is_quick {
                return Err(format!("{why}: give a --directory on a disk"));
            }
            eprintln!("warning: {why}");
        }
        Ok(machine)
    }

    /// In a line.
    pub fn described(&self) -> String {
        format!(
            "machine: {} cores, {:.1} GiB of memory, {}, data on {}",
            self.cores,
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.kernel,
            self.file_system,
        )
    }

    /// Whether the data would only be in memory, where a sync costs nothing.
    pub fn is_in_memory(&self) -> bool {
        ["tmpfs", "ramfs"].contains(&self.file_system.as_str())
    }
}

/// The first two numbers of a release: what follows names a build.
fn version(release: &str) -> &str {
    let end = release.match_indices('.').nth(1).map_or(release.len(), |(end, _)| end);
    &release[..end]
}

/// The kind of the mount that the directory is on: the last one with the longest
/// path that leads to it.
fn file_system(mounts: &str, directory: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        let length = point.len();
        if directory.starts_with(&point) && best.is_none_or(|(longest, _)| length >= longest) {
            best = Some((length, kind.split(' ').next()?));
        }
    }
    best.map(|(_, kind)| kind.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Machine, file_system};

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "21 1 8:1 / / rw - ext4 /dev/sda rw\n\
                      22 21 0:2 / /tmp rw,nosuid shared:4 - tmpfs tmpfs rw\n\
                      23 21 0:3 / /tmp/a\\040b rw - xfs /dev/sdb rw\n";
        assert_eq!(file_system(mounts, Path::new("/home/x")).as_deref(), Some("ext4"));
        assert_eq!(file_system(mounts, Path::new("/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmpx")).as_deref(), Some("ext4"));
        assert_eq!(file_system(mounts, Path::new("/tmp/a b/c")).as_deref(), Some("xfs"));
    }

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::look(Path::new(".")).unwrap();
        assert!(machine.cores > 0 && machine.memory_bytes > 0);
        assert_ne!(machine.file_system, "unknown");
    }
}
