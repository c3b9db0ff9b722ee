//! Whether what a node shows can have come from what its clients were told.

use std::collections::HashSet;

use super::fault::{Fault, FaultKind};
use super::ledger::{Kind, Ledger, Number, Shown, State, Told, Write};

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Value,
    Vector,
}

impl Part {
    fn of(self, shown: &Shown) -> Option<Number> {
        if self == Part::Value { shown.value } else { shown.vector }
    }

    fn is_written_by(self, write: &Write) -> bool {
        match write.kind {
            Kind::SetValue => self == Part::Value,
            Kind::AddVector => self == Part::Vector,
            Kind::Delete => true,
        }
    }
}

/// One of what may have left a register as it is.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    BeforeTheRound,
    Write(Number),
}

pub(super) struct Explanation<'a> {
    ledger: &'a Ledger,
    now: &'a State,
    shown: HashSet<Number>,
    happened: HashSet<Number>,
}

impl<'a> Explanation<'a> {
    pub(super) fn new(ledger: &'a Ledger, now: &'a State) -> Explanation<'a> {
        let shown: HashSet<Number> =
            now.values().flat_map(|shown| [shown.value, shown.vector]).flatten().collect();
        let certain = ledger.writes.values().filter(|write| {
            write.told == Told::Acknowledged || (write.is_read && write.told != Told::Refused)
        });
        let happened = certain.map(|write| write.number).chain(shown.iter().copied()).collect();
        let mut explanation = Explanation { ledger, now, shown, happened };
        // What is the only explanation of one register must be allowed for in all others.
        while explanation.conclude() {}
        explanation
    }

    /// Whether a write of the round certainly happened.
    pub(super) fn happened(&self, number: Number) -> bool {
        self.happened.contains(&number)
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let unexplained = self.registers().filter(|(key, part)| self.origins(key, *part).is_empty());
        unexplained.map(|(key, part)| self.fault(key, part)).collect()
    }

    fn registers(&self) -> impl Iterator<Item = (&'a str, Part)> + use<'a> {
        let unknown = self.now.keys().filter(|key| !self.ledger.keys().contains(*key));
        let keys = self.ledger.keys().iter().chain(unknown.collect::<Vec<_>>());
        keys.flat_map(|key| [(key.as_str(), Part::Value), (key.as_str(), Part::Vector)])
    }

    fn conclude(&mut self) -> bool {
        let mut concluded = false;
        for (key, part) in self.registers() {
            if let [Origin::Write(only)] = self.origins(key, part)[..] {
                concluded |= self.happened.insert(only);
            }
        }
        concluded
    }

    /// All that can have left the register as it is.
    fn origins(&self, key: &str, part: Part) -> Vec<Origin> {
        let shown = self.now.get(key).and_then(|shown| part.of(shown));
        self.possible(key, part, |left| left == shown)
    }

    /// All that can be seen in the register, as far as `wanted` asks for it.
    fn possible(&self, key: &str, part: Part, wanted: impl Fn(Option<Number>) -> bool) -> Vec<Origin> {
        let writes = self.writes(key, part);
        let candidates = writes.iter().filter(|write| write.told != Told::Refused && wanted(write.leaves()));
        let mut origins: Vec<Origin> = candidates
            .filter(|candidate| !writes.iter().any(|later| self.hides(later, candidate)))
            .map(|candidate| Origin::Write(candidate.number))
            .collect();
        let is_overwritten = || writes.iter().any(|write| self.happened.contains(&write.number));
        if wanted(self.before(key, part)) && !is_overwritten() {
            origins.push(Origin::BeforeTheRound);
        }
        origins
    }

    /// The round's writes to a register.
    fn writes(&self, key: &str, part: Part) -> Vec<&'a Write> {
        let numbers = self.ledger.by_key.get(key).map_or(&[][..], Vec::as_slice);
        let writes = numbers.iter().map(|number| &self.ledger.writes[number]);
        writes.filter(|write| part.is_written_by(write)).collect()
    }

    fn before(&self, key: &str, part: Part) -> Option<Number> {
        self.ledger.before.get(key).and_then(|shown| part.of(shown))
    }

    /// Whether `later` certainly happened, and after `earlier`.
    fn hides(&self, later: &Write, earlier: &Write) -> bool {
        let in_order = later.connection == earlier.connection && later.number > earlier.number;
        (in_order || later.begun > earlier.answered) && self.happened.contains(&later.number)
    }

    /// What is wrong with a register that nothing explains.
    fn fault(&self, key: &str, part: Part) -> Fault {
        let shown = self.now.get(key).and_then(|shown| part.of(shown));
        let possible = self.possible(key, part, |_| true);
        let expected: Vec<String> = possible.iter().map(|origin| self.describe(*origin, key, part)).collect();
        let name = if part == Part::Value { "the value" } else { "the vector" };
        Fault {
            kind: self.kind(shown, &possible, key, part),
            key: key.to_string(),
            expected: format!("{name} of {}", expected.join(" or ")),
            found: match shown {
                None => "none".to_string(),
                Some(number) => format!("that of {}", self.name(number)),
            },
        }
    }

    fn kind(&self, shown: Option<Number>, possible: &[Origin], key: &str, part: Part) -> FaultKind {
        let write = |number: Number| self.ledger.writes.get(&number);
        if shown.and_then(write).is_some_and(|write| write.told == Told::Refused) {
            return FaultKind::Resurrected;
        }
        let is_torn = |origin: &Origin| match origin {
            Origin::BeforeTheRound => false,
            Origin::Write(number) => write(*number).is_some_and(|write| {
                write.is_bulk && (write.told != Told::Acknowledged || self.shown.contains(number))
            }),
        };
        if possible.iter().any(is_torn) {
            return FaultKind::PartialBulk;
        }
        let leaves_nothing = |origin: &Origin| match origin {
            Origin::BeforeTheRound => self.before(key, part).is_none(),
            Origin::Write(number) => write(*number).is_some_and(|write| write.leaves().is_none()),
        };
        let came_back = shown.is_some() && possible.iter().all(leaves_nothing);
        if came_back { FaultKind::Resurrected } else { FaultKind::Lost }
    }

    fn describe(&self, origin: Origin, key: &str, part: Part) -> String {
        match (origin, self.before(key, part)) {
            (Origin::Write(number), _) => self.name(number),
            (Origin::BeforeTheRound, Some(number)) => format!("write {number}, as read before this round"),
            (Origin::BeforeTheRound, None) => "nothing, as read before this round".to_string(),
        }
    }

    fn name(&self, number: Number) -> String {
        let Some(write) = self.ledger.writes.get(&number) else {
            return format!("write {number} of another round");
        };
        let kind = match (write.kind, write.is_bulk) {
            (Kind::SetValue, false) => "set",
            (Kind::SetValue, true) => "bulk_set",
            (Kind::AddVector, _) => "add_vector",
            (Kind::Delete, false) => "delete",
            (Kind::Delete, true) => "bulk_delete",
        };
        let told = match write.told {
            Told::Acknowledged => "acknowledged",
            Told::Refused => "refused",
            Told::Unknown if self.happened(number) => "unknown, but it shows elsewhere",
            Told::Unknown => "unknown",
        };
        format!("write {number} ({kind}, {told})")
    }
}
