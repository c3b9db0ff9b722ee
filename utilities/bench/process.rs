//! What the system tells about a process: processor time, memory, children.

use std::fs;
use std::time::Duration;

/// Processor time that a process has used, its threads' and that of the children
/// it has waited for included: a log that a child rewrote was work, too.
pub fn cpu(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let ticks = cpu_ticks(&text).ok_or_else(|| format!("{path} is not understood: {text}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// utime, stime, cutime and cstime: fields 14 to 17, counted from behind the
/// program's name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    const FIELDS_BEFORE: usize = 11;
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: Vec<u64> =
        fields.split(' ').skip(FIELDS_BEFORE).take(4).map_while(|field| field.parse().ok()).collect();
    (ticks.len() == 4).then(|| ticks.iter().sum())
}

/// Bytes of memory that the process occupies.
pub fn resident_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib * 1024).ok_or_else(|| format!("{path} has no VmRSS"))
}

/// Children that run, as a process that rewrites a log in the background.
pub fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{children, cpu, cpu_ticks, resident_bytes};

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 5 3 20 0 4 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(50));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id();
        cpu(pid).unwrap();
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(children(pid).is_empty());
        assert!(resident_bytes(u32::MAX).is_err());
    }
}
