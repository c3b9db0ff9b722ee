//! How many files the process may open, and what for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that the node itself needs beside its clients' connections: the log's, and its peers' sockets.
const FILES_RESERVED: u64 = 128;
/// Of these, what it can't start without, beside its threads'.
const FILES_LEAST: u64 = 40;
/// A shard's two threads wait for events by so many each, together.
const FILES_PER_SHARD: u64 = 8;
/// It serves no fewer clients than this at once.
const CONNECTIONS_LEAST: u64 = 8;

/// Raises the limit of open files as far as it goes, and says how many
/// connections that allows: `wanted`, or fewer. The error says that it is too
/// low for any.
pub fn connections_allowed(wanted: usize, shards: usize) -> Result<usize, String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let Some(files) = current else { return Ok(wanted) };
    let allowed = allowed(files, shards)?;
    if allowed < wanted {
        tracing::warn!(wanted, allowed, "fewer connections: the process may not open more files (ulimit -n)");
    }
    Ok(wanted.min(allowed))
}

fn allowed(files: u64, shards: usize) -> Result<usize, String> {
    let threads = FILES_PER_SHARD * shards as u64;
    let least = FILES_LEAST + threads + CONNECTIONS_LEAST;
    if files < least {
        return Err(format!(
            "the process may open {files} files (ulimit -n), and with {shards} shards the node needs {least} at \
             least, and {} beside one for each client to be safe; raise the limit, or give fewer --shards",
            FILES_RESERVED + threads
        ));
    }
    let beside = (FILES_RESERVED + threads).min(files - CONNECTIONS_LEAST);
    Ok((files - beside) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_allow_few_connections_and_too_few_no_start() {
        assert_eq!(allowed(1024, 1), Ok(1024 - 136));
        assert_eq!(allowed(60, 1), Ok(8));
        assert_eq!(allowed(56, 1), Ok(8));
        assert!(allowed(55, 1).is_err_and(|reason| reason.contains("may open 55 files (ulimit -n)")));
        assert!(allowed(56, 2).is_err());
        assert_eq!(allowed(1_000_000, 256), Ok(1_000_000 - 128 - 2048));
    }
}
