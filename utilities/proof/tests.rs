//! The ledger on histories written by hand: what it lets pass, and what it doesn't.

use super::ledger::{Kind, Ledger, Number, Shown, State, Told};
use super::names::{Names, number_in_value, number_in_vector};
use super::{Fault, FaultKind};

const CONNECTION: usize = 0;
const OTHER_CONNECTION: usize = 1;

struct History {
    ledger: Ledger,
}

impl History {
    fn new() -> History {
        History { ledger: Ledger::default() }
    }

    fn begin(&mut self, connection: usize, kind: Kind, keys: &[&str]) -> Number {
        let number = self.ledger.next_number();
        let keys = keys.iter().map(|key| key.to_string()).collect();
        self.ledger.begin(number, connection, kind, keys);
        number
    }

    fn set(&mut self, key: &str, told: Told) -> Number {
        let number = self.begin(CONNECTION, Kind::SetValue, &[key]);
        self.ledger.answered(number, told, None);
        number
    }

    fn bulk(&mut self, kind: Kind, told: Told) -> Number {
        let number = self.begin(CONNECTION, kind, &["a", "b"]);
        self.ledger.answered(number, told, None);
        number
    }

    fn settle(&mut self, shown: &[(&str, Number)]) -> Vec<Fault> {
        let shown = shown.iter().map(|(key, number)| {
            let version = number.to_string();
            (key.to_string(), Shown { value: Some(*number), vector: None, version })
        });
        self.ledger.settle(shown.collect::<State>())
    }

    #[track_caller]
    fn shows(&mut self, shown: &[(&str, Number)]) {
        assert_eq!(self.settle(shown), []);
    }

    /// The kind and the key of the only fault.
    #[track_caller]
    fn fails(&mut self, shown: &[(&str, Number)], kind: FaultKind, key: &str) {
        let faults = self.settle(shown);
        let told: Vec<_> = faults.iter().map(|fault| (fault.kind, fault.key.as_str())).collect();
        assert_eq!(told, [(kind, key)], "{faults:?}");
    }
}

#[test]
fn what_was_acknowledged_last_must_show() {
    let mut history = History::new();
    let first = history.set("a", Told::Acknowledged);
    let last = history.set("a", Told::Acknowledged);
    history.shows(&[("a", last)]);
    history.fails(&[], FaultKind::Lost, "a");

    let mut history = History::new();
    history.set("a", Told::Acknowledged);
    history.set("a", Told::Acknowledged);
    history.fails(&[("a", first)], FaultKind::Lost, "a");
}

#[test]
fn what_is_unknown_may_show_or_not_and_then_stays_so() {
    let mut history = History::new();
    let known = history.set("a", Told::Acknowledged);
    let unknown = history.set("a", Told::Unknown);
    history.shows(&[("a", known)]);
    history.fails(&[("a", unknown)], FaultKind::Lost, "a");

    let mut history = History::new();
    let known = history.set("a", Told::Acknowledged);
    let unknown = history.set("a", Told::Unknown);
    history.shows(&[("a", unknown)]);
    assert_eq!(history.ledger.figures.unknown_applied, 1);
    history.fails(&[("a", known)], FaultKind::Lost, "a");
}

#[test]
fn what_was_refused_must_not_show_nor_have_been_read() {
    let mut history = History::new();
    let refused = history.set("a", Told::Refused);
    history.fails(&[("a", refused)], FaultKind::Resurrected, "a");

    let mut history = History::new();
    let refused = history.set("a", Told::Refused);
    let value = Names::new("t").value(refused, "a");
    history.ledger.was_read(&value);
    history.fails(&[], FaultKind::Resurrected, "a");
}

#[test]
fn what_a_client_has_read_must_show() {
    let mut history = History::new();
    let read = history.set("a", Told::Unknown);
    let value = Names::new("t").value(read, "a");
    history.ledger.was_read(&value);
    history.fails(&[], FaultKind::Lost, "a");
}

#[test]
fn what_was_deleted_must_not_come_back() {
    let mut history = History::new();
    let number = history.set("a", Told::Acknowledged);
    history.shows(&[("a", number)]);
    let delete = history.begin(CONNECTION, Kind::Delete, &["a"]);
    history.ledger.answered(delete, Told::Acknowledged, None);
    history.fails(&[("a", number)], FaultKind::Resurrected, "a");
}

#[test]
fn a_bulk_shows_whole_or_not_at_all() {
    for (shown_keys, is_whole) in [(vec!["a", "b"], true), (vec![], true), (vec!["a"], false)] {
        let mut history = History::new();
        let bulk = history.bulk(Kind::SetValue, Told::Unknown);
        let shown: Vec<_> = shown_keys.iter().map(|key| (*key, bulk)).collect();
        if is_whole {
            history.shows(&shown);
        } else {
            history.fails(&shown, FaultKind::PartialBulk, "b");
        }
    }
}

#[test]
fn an_acknowledged_bulk_that_is_half_there_is_partial_and_one_that_is_gone_is_lost() {
    let mut history = History::new();
    let bulk = history.bulk(Kind::SetValue, Told::Acknowledged);
    history.fails(&[("b", bulk)], FaultKind::PartialBulk, "a");

    let mut history = History::new();
    history.bulk(Kind::SetValue, Told::Acknowledged);
    let kinds: Vec<FaultKind> = history.settle(&[]).iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::Lost, FaultKind::Lost]);
}

#[test]
fn a_bulk_delete_that_is_half_done_is_partial() {
    let mut history = History::new();
    let bulk = history.bulk(Kind::SetValue, Told::Acknowledged);
    history.shows(&[("a", bulk), ("b", bulk)]);
    history.bulk(Kind::Delete, Told::Unknown);
    history.fails(&[("b", bulk)], FaultKind::PartialBulk, "b");
}

#[test]
fn writes_of_two_connections_at_once_may_come_in_either_order() {
    for first_shows in [true, false] {
        let mut history = History::new();
        let first = history.begin(CONNECTION, Kind::SetValue, &["a"]);
        let second = history.begin(OTHER_CONNECTION, Kind::SetValue, &["a"]);
        history.ledger.answered(second, Told::Acknowledged, None);
        history.ledger.answered(first, Told::Acknowledged, None);
        history.shows(&[("a", if first_shows { first } else { second })]);
    }
}

#[test]
fn a_version_is_the_one_that_was_told() {
    let mut history = History::new();
    let number = history.begin(CONNECTION, Kind::SetValue, &["a"]);
    history.ledger.answered(number, Told::Acknowledged, Some("another"));
    history.fails(&[("a", number)], FaultKind::Disagreement, "a");
}

#[test]
fn a_settled_ledger_holds_keys_but_no_writes() {
    let mut history = History::new();
    for _ in 0..3 {
        let number = history.set("a", Told::Acknowledged);
        history.shows(&[("a", number)]);
        assert_eq!((history.ledger.writes().count(), history.ledger.keys().len()), (0, 1));
    }
    let figures = history.ledger.figures;
    assert_eq!((figures.acknowledged, figures.registers_verified), (3, 6));
}

#[test]
fn a_fault_names_the_key_what_may_be_there_and_what_is() {
    let mut history = History::new();
    let number = history.set("a", Told::Acknowledged);
    assert_eq!(number, 1);
    let faults: Vec<String> = history.settle(&[]).iter().map(Fault::to_string).collect();
    assert_eq!(faults, ["LOST a: expected the value of write 1 (set, acknowledged), found none"]);
}

#[test]
fn values_and_vectors_tell_their_write() {
    let names = Names::new("t");
    for number in [1, 65_535, 65_536, 123_456_789] {
        assert_eq!(number_in_value(&names.value(number, "k")), Some(number));
        assert_eq!(number_in_vector(&names.vector(number)), Some(number));
    }
}
