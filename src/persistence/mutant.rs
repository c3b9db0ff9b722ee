//! Faults that tests put into the log on purpose, to prove that the crash
//! states find them. Outside of tests there are none.

/// A known way to get a write-ahead log wrong.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// A frame is reported durable without a sync.
    AcknowledgeBeforeSync,
    /// A new segment's header is not synced before it gets its name.
    SegmentNotSynced,
    /// A new segment's name is not synced before it is used.
    SegmentNameNotSynced,
    /// A failed sync is reported without sealing the file.
    NoSeal,
    /// A seal counts the refused frame to the sealed segment.
    SealKeepsRefusedFrame,
    /// A seal that failed is reported as if it had succeeded.
    UnsealedIsRefused,
    /// A segment is appended to although its successor may be on disk.
    GrowsBesideSuccessor,
    /// What a crash has left of a cut is taken for a log with a hole.
    HalfCutIsDamage,
    /// Frames are not salted, so that a client's value can pass for one.
    NoSalt,
    /// Recovery trusts what it reads without making it durable.
    RecoveryTrustsCache,
    /// Recovery hands over entries that a later frame has superseded.
    SupersededStays,
    /// Recovery hands over entries behind the commit index.
    CommitIgnored,
    /// The index goes back before the frame that replaces entries is durable.
    ReplacedTooEarly,
    /// Entries that are committed may be replaced.
    CommittedReplaced,
    /// A cut that may take any segment takes all but the current one.
    CutTooFar,
    /// The log's first index is taken from its oldest segment alone.
    OldestHeaderCounts,
    /// The old segments are removed before the one that begins anew is durable.
    RestartRemovesFirst,
    /// The segment that begins anew gets its frame only when it has its name.
    RestartFrameLater,
}

/// Whether the test's fault `$name` is switched on: never, outside of tests.
macro_rules! broken {
    ($options:expr, $name:ident) => {{
        #[cfg(test)]
        let switched_on = $options.mutant == Some(crate::persistence::mutant::Mutant::$name);
        #[cfg(not(test))]
        let switched_on = {
            let _ = &$options;
            false
        };
        switched_on
    }};
}

pub(super) use broken;
