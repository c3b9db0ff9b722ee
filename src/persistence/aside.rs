//! What recoveries put aside instead of using it: copies of torn tails, segments behind damage, snapshots that
//! can't be used. Nobody reads them but people, so the last few of each kind are kept and older ones go: a disk
//! that tears a tail at each start would else fill up with them.
//!
//! ```text
//! log/torn-<segment>-<offset>     log/damaged-<segment>     snapshots/damaged-<snapshot>
//! ```
//!
//! Segments behind damage belong together: however many one start puts aside, all stay until a later start puts
//! others aside.

use std::io;

use super::disk::Disk;

/// How many of each kind are kept.
const KEPT: usize = 4;
/// How often a free name is looked for.
const NAMES_MAX: u32 = 10_000;

/// The first of `name`, `name-1`, `name-2`, … for which `make` doesn't say that it is taken.
pub(super) fn with_free_name<T>(
    name: &str,
    mut make: impl FnMut(&str) -> io::Result<T>,
) -> io::Result<(String, T)> {
    for number in 0..NAMES_MAX {
        // An earlier start may have left the same: it is kept.
        let name = if number == 0 { name.to_string() } else { format!("{name}-{number}") };
        match make(&name) {
            Ok(made) => return Ok((name, made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many files were put aside under one name"))
}

/// Renames a file to `to`, or to that with a number behind it, durably. Gives the name that it has now.
pub fn put_aside<D: Disk>(disk: &D, directory: &str, from: &str, to: &str) -> io::Result<String> {
    let names = disk.list(directory)?;
    let (name, ()) = with_free_name(to, |name| {
        let is_taken = names.iter().any(|taken| name == format!("{directory}/{taken}"));
        if is_taken { Err(io::ErrorKind::AlreadyExists.into()) } else { disk.rename(from, name) }
    })?;
    disk.sync_directory(directory)?;
    Ok(name)
}

/// Removes all but the newest files of `directory` whose names begin with `beginning`; gives what it has removed.
/// `fresh` are this start's own: they stay, and count among those that are kept.
pub fn remove_older_aside<D: Disk>(
    disk: &D,
    directory: &str,
    beginning: &str,
    fresh: &[String],
) -> io::Result<Vec<String>> {
    let names = disk.list(directory)?.into_iter().filter(|name| name.starts_with(beginning));
    let (fresh, mut older): (Vec<String>, Vec<String>) =
        names.map(|name| format!("{directory}/{name}")).partition(|name| fresh.contains(name));
    older.sort_by_key(|name| numbers(name));
    older.truncate(older.len().saturating_sub(KEPT.saturating_sub(fresh.len())));
    for name in &older {
        disk.remove(name)?;
    }
    Ok(older)
}

/// The numbers in a name: segments, offsets and indexes ascend with time.
fn numbers(name: &str) -> Vec<u64> {
    let digits = name.split(|letter: char| !letter.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}
