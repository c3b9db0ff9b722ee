//! How far an import is, kept beside its input so that it can go on there.
//!
//! ```text
//! {"format":1,"target":"127.0.0.1:9000",
//!  "input":{"bytes":…,"modified_ns":…,"beginning":"…16 hex digits…"},
//!  "offset":…,"line":…,"records":…,"skipped":…}
//! ```
//!
//! It is written to a file beside it and renamed, after a batch was
//! acknowledged: what it says is done is done. A batch more may be, and is sent
//! again; that changes nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::import_lines::Place;

const FORMAT: u32 = 1;
/// Behind an input's name.
const SUFFIX: &str = ".import-progress.json";
/// How much of the input its beginning is.
const BEGINNING_BYTES: u64 = 64 * 1024;

/// An input file, told from others and from itself after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub bytes: u64,
    modified_ns: u64,
    beginning: String,
}

impl Input {
    /// What `file` is now.
    pub fn of(file: &File) -> io::Result<Input> {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut beginning = Vec::new();
        let mut reader = file;
        io::Seek::rewind(&mut reader)?;
        reader.take(BEGINNING_BYTES).read_to_end(&mut beginning)?;
        Ok(Input {
            bytes: metadata.len(),
            modified_ns: modified.as_nanos() as u64,
            beginning: format!("{:016x}", fnv_1a(&beginning)),
        })
    }
}

/// The 64-bit FNV-1a hash.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What is done of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    format: u32,
    target: String,
    input: Input,
    offset: u64,
    line: u64,
    pub records: u64,
    pub skipped: u64,
}

impl Progress {
    /// Nothing yet.
    pub fn new(target: &str, input: Input) -> Progress {
        Progress {
            format: FORMAT,
            target: target.to_string(),
            input,
            offset: 0,
            line: 0,
            records: 0,
            skipped: 0,
        }
    }

    pub fn place(&self) -> Place {
        Place { offset: self.offset, line: self.line }
    }

    pub fn set_place(&mut self, place: Place) {
        (self.offset, self.line) = (place.offset, place.line);
    }
}

/// The file that keeps a [`Progress`].
pub struct ProgressFile {
    path: PathBuf,
}

impl ProgressFile {
    /// Where it was asked for, or beside the input.
    pub fn new(input: &Path, asked_for: Option<PathBuf>) -> ProgressFile {
        let beside = || {
            let mut name = input.as_os_str().to_os_string();
            name.push(SUFFIX);
            PathBuf::from(name)
        };
        ProgressFile { path: asked_for.unwrap_or_else(beside) }
    }

    /// What an earlier import of the same input to the same node has done, if
    /// there was one. An earlier import of something else is refused.
    pub fn load(&self, fresh: &Progress) -> Result<Option<Progress>, Failure> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file(&self.path, error)),
        };
        let refused = |why: &str| {
            let advice = "--restart begins with the first line, --state names another file";
            Failure::file(&self.path, format!("an import was broken off, but {why}; {advice}"))
        };
        let stored: Progress = serde_json::from_slice(&text)
            .map_err(|error| refused(&format!("how far it was can't be read: {error}")))?;
        if stored.format != FORMAT {
            return Err(refused(&format!("its format is {}, this version reads {FORMAT}", stored.format)));
        }
        if stored.input != fresh.input {
            return Err(refused("its input has changed since"));
        }
        if stored.target != fresh.target {
            return Err(refused(&format!("it went to {}, not to {}", stored.target, fresh.target)));
        }
        Ok(Some(stored))
    }

    /// Writes it in place of the old one, all or nothing.
    pub fn store(&self, progress: &Progress) -> Result<(), Failure> {
        let written = || -> io::Result<()> {
            let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
            serde_json::to_writer(&mut file, progress)?;
            file.write_all(b"\n")?;
            file.persist(&self.path)?;
            Ok(())
        };
        written().map_err(|error| Failure::file(&self.path, error))
    }

    /// The import is complete.
    pub fn remove(&self) -> Result<(), Failure> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file(&self.path, error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, text: &str) -> Input {
        let path = directory.join("input");
        std::fs::write(&path, text).unwrap();
        Input::of(&File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn what_was_stored_is_loaded_for_the_same_input_and_node_alone() {
        let directory = tempfile::tempdir().unwrap();
        let input = written(directory.path(), "abc");
        let file = ProgressFile::new(&directory.path().join("input"), None);
        let fresh = Progress::new("a:1", input.clone());
        assert!(file.load(&fresh).unwrap().is_none());
        let mut progress = fresh.clone();
        progress.set_place(Place { offset: 2, line: 1 });
        file.store(&progress).unwrap();
        assert_eq!(file.load(&fresh).unwrap(), Some(progress));
        let elsewhere = Progress::new("b:1", input);
        assert!(file.load(&elsewhere).unwrap_err().message.contains("went to a:1"));
        let changed = Progress::new("a:1", written(directory.path(), "abd"));
        assert!(file.load(&changed).unwrap_err().message.contains("has changed"));
        file.remove().unwrap();
        assert!(file.load(&fresh).unwrap().is_none());
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv_1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
