//! The version of a key: the position of the write that made it.

use std::fmt;

/// The position of a write in the log: it changes at every write of a key, and
/// in replay a later write guards the key against an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// The log entry that carries the write.
    pub index: u64,
    /// The request within that entry; all keys of a bulk share it.
    pub ordinal: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.index, self.ordinal)
    }
}

impl Version {
    /// Reads what [`Version`]'s `Display` writes, and only exactly that: a
    /// version is opaque to clients and compared for equality.
    pub fn parse(text: &str) -> Option<Version> {
        let (index, ordinal) = text.split_once('.')?;
        let version = Version { index: index.parse().ok()?, ordinal: ordinal.parse().ok()? };
        (version.to_string() == text).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { index: 7, ordinal: 3 };

    #[test]
    fn a_version_is_read_only_in_its_one_spelling() {
        assert_eq!(Version::parse("7.3"), Some(VERSION));
        for text in ["07.3", "7.03", "7", "7.", ".3", "7.3 ", "+7.3", "7.4294967296"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
