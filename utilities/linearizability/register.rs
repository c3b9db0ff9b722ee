//! The model: one key.
//!
//! ```text
//! absent ── set, bulk ──► value + version ── set, bulk ──► another value + version
//!    ▲                          │
//!    └───────── delete ─────────┘
//! ```
//!
//! The version that a write gave is known when its client was told or when somebody
//! read the value. Otherwise the register has a version that isn't known yet; the
//! first refusal that names one settles it.

use std::collections::HashSet;

use super::history::{Condition, Number, Version};
use super::search::Model;

/// What is there, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Absent,
    Present { value: Number, version: Option<Version> },
}

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Register {
    content: Content,
    /// The content is what an operation left that need not have happened, and nothing has
    /// depended on it since. A write over it would make that operation pointless: leaving
    /// it out gives the same state. So such orders are not tried, or every write whose
    /// outcome nobody knows would double the search.
    is_idle: bool,
}

impl Register {
    /// Before the first write.
    pub(super) fn absent() -> Register {
        Register { content: Content::Absent, is_idle: false }
    }
}

/// What is done to a key, with its answer.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Read(Option<(Number, Version)>),
    /// The version is `None` when nobody was ever told.
    Set {
        value: Number,
        version: Option<Version>,
        condition: Condition,
    },
    /// `found` is `None` when nobody was told.
    Delete {
        found: Option<bool>,
        condition: Condition,
    },
    /// A write's condition did not hold, and this was the version.
    Mismatch {
        current: Option<Version>,
        condition: Condition,
    },
}

impl Action {
    /// Whether it changes nothing.
    pub(super) fn is_observation(&self) -> bool {
        matches!(self, Action::Read(_) | Action::Mismatch { .. })
    }

    /// The same if nobody had been told its outcome.
    pub(super) fn without_answer(&self) -> Action {
        match self {
            Action::Delete { condition, .. } => Action::Delete { found: None, condition: condition.clone() },
            other => other.clone(),
        }
    }
}

/// One key's rules.
pub(super) struct Key {
    /// The versions whose writes are known: no other write can have had one of them.
    pub(super) owned: HashSet<Version>,
}

impl Key {
    /// The content, if its version can be this one.
    fn with_version(&self, content: &Content, wanted: &Version) -> Option<Content> {
        match content {
            Content::Present { version: Some(version), .. } if version == wanted => Some(content.clone()),
            Content::Present { value, version: None } if !self.owned.contains(wanted) => {
                Some(Content::Present { value: *value, version: Some(wanted.clone()) })
            }
            _ => None,
        }
    }

    /// The content, if the condition can hold there.
    fn if_holds(&self, content: &Content, condition: &Condition) -> Option<Content> {
        match condition {
            Condition::Always => Some(content.clone()),
            Condition::IfAbsent => (*content == Content::Absent).then_some(Content::Absent),
            Condition::IfVersion(version) => self.with_version(content, version),
        }
    }

    fn if_read(&self, content: &Content, read: &Option<(Number, Version)>) -> Option<Content> {
        let Some((wanted, version)) = read else {
            return (*content == Content::Absent).then_some(Content::Absent);
        };
        let is_this = matches!(content, Content::Present { value, .. } if value == wanted);
        if is_this { self.with_version(content, version) } else { None }
    }

    fn if_mismatch(
        &self,
        content: &Content,
        current: &Option<Version>,
        condition: &Condition,
    ) -> Option<Content> {
        let seen = match current {
            None => (*content == Content::Absent).then_some(Content::Absent),
            Some(version) => self.with_version(content, version),
        };
        // With the version settled there is no doubt any more whether the condition holds.
        seen.filter(|seen| self.if_holds(seen, condition).is_none())
    }
}

impl Model for Key {
    type State = Register;
    type Action = Action;

    fn step(&self, register: &Register, action: &Action, is_optional: bool) -> Option<Register> {
        let content = &register.content;
        let is_blind = matches!(
            action,
            Action::Set { condition: Condition::Always, .. }
                | Action::Delete { found: None, condition: Condition::Always }
        );
        if is_blind && register.is_idle {
            return None;
        }
        let content = match action {
            Action::Read(read) => self.if_read(content, read)?,
            Action::Mismatch { current, condition } => self.if_mismatch(content, current, condition)?,
            Action::Set { value, version, condition } => {
                self.if_holds(content, condition)?;
                Content::Present { value: *value, version: version.clone() }
            }
            Action::Delete { found, condition } => {
                let before = self.if_holds(content, condition)?;
                let is_there = before != Content::Absent;
                if found.unwrap_or(true) != is_there {
                    return None;
                }
                Content::Absent
            }
        };
        Some(Register { content, is_idle: is_optional })
    }
}
