//! The search for an order: Wing & Gong's, with Lowe's cache.
//!
//! Starts and ends of all operations stand in one list, in the order of time. An
//! operation may come next if no end of another one stands before its start. One
//! that may come next and that the model allows is lifted out of the list, start
//! and end, and the search goes on from the front; where an end is met first, that
//! operation had to come earlier, and the last choice is taken back. A set of
//! lifted operations together with the state behind them is never tried twice.
//!
//! An operation that need not have happened has no end. All is explained when only
//! such are left.

use std::collections::HashSet;
use std::hash::Hash;

use super::history::Time;

/// One object that does one thing at a time.
pub(super) trait Model {
    /// What it is.
    type State: Clone + Eq + Hash;
    /// What can be done to it, with what was answered.
    type Action;
    /// The state behind `action`, `None` when that can't be done here with that answer,
    /// or when it could as well be left out.
    fn step(&self, state: &Self::State, action: &Self::Action, is_optional: bool) -> Option<Self::State>;
}

/// Something that was done, and when.
#[derive(Clone, Debug)]
pub(super) struct Step<A> {
    /// What, and what was answered.
    pub action: A,
    /// It took effect behind this.
    pub start: Time,
    /// And before this; `None` when it need not have taken effect at all.
    pub end: Option<Time>,
}

/// What a search found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Violation,
    /// None was found within the steps allowed.
    Undecided,
}

/// Places in the list; each operation has one for its start and one for its end.
type Place = usize;
const NOWHERE: Place = usize::MAX;

/// The list of starts and ends. The place behind all others is its head.
struct List {
    next: Vec<Place>,
    before: Vec<Place>,
}

impl List {
    /// Of `places` in this order.
    fn of(order: &[Place], places: usize) -> List {
        let head = places;
        let mut list = List { next: vec![NOWHERE; places + 1], before: vec![NOWHERE; places + 1] };
        let mut last = head;
        for place in order {
            list.next[last] = *place;
            list.before[*place] = last;
            last = *place;
        }
        list
    }

    fn first(&self) -> Place {
        self.next[self.next.len() - 1]
    }

    fn take_out(&mut self, place: Place) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = next;
        if next != NOWHERE {
            self.before[next] = before;
        }
    }

    /// Undoes `take_out`, if places are put back in the opposite order.
    fn put_back(&mut self, place: Place) {
        let (before, next) = (self.before[place], self.next[place]);
        self.next[before] = place;
        if next != NOWHERE {
            self.before[next] = place;
        }
    }
}

/// Which operations were lifted.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Lifted(Box<[u64]>);

impl Lifted {
    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }
}

fn start_of(operation: usize) -> Place {
    2 * operation
}

fn end_of(operation: usize) -> Place {
    2 * operation + 1
}

/// Starts and ends in the order of time; at the same time starts come first, so that
/// such operations overlap.
fn in_order<A>(steps: &[Step<A>]) -> Vec<Place> {
    let mut events: Vec<(Time, bool, Place)> = Vec::with_capacity(2 * steps.len());
    for (operation, step) in steps.iter().enumerate() {
        events.push((step.start, false, start_of(operation)));
        events.extend(step.end.map(|end| (end, true, end_of(operation))));
    }
    events.sort_unstable();
    events.into_iter().map(|(_, _, place)| place).collect()
}

/// Searches; counts every try in `steps_left` and gives up when none is left.
pub(super) fn search<M: Model>(
    model: &M,
    initial: M::State,
    steps: &[Step<M::Action>],
    steps_left: &mut u64,
) -> Verdict {
    let mut list = List::of(&in_order(steps), 2 * steps.len());
    let mut lifted = Lifted(vec![0; steps.len().div_ceil(64)].into());
    let mut must_left = steps.iter().filter(|step| step.end.is_some()).count();
    let mut state = initial;
    let mut tried: HashSet<(Lifted, M::State)> = HashSet::new();
    let mut choices: Vec<(usize, M::State)> = Vec::new();
    let mut place = list.first();
    while must_left > 0 {
        if place != NOWHERE && place.is_multiple_of(2) {
            if *steps_left == 0 {
                return Verdict::Undecided;
            }
            *steps_left -= 1;
            let operation = place / 2;
            let step = &steps[operation];
            if let Some(next) = model.step(&state, &step.action, step.end.is_none()) {
                lifted.flip(operation);
                if tried.insert((lifted.clone(), next.clone())) {
                    list.take_out(start_of(operation));
                    if step.end.is_some() {
                        list.take_out(end_of(operation));
                        must_left -= 1;
                    }
                    choices.push((operation, std::mem::replace(&mut state, next)));
                    place = list.first();
                    continue;
                }
                lifted.flip(operation);
            }
            place = list.next[place];
            continue;
        }
        // An end, or the end of the list: one of the choices was wrong.
        let Some((operation, before)) = choices.pop() else { return Verdict::Violation };
        state = before;
        lifted.flip(operation);
        if steps[operation].end.is_some() {
            list.put_back(end_of(operation));
            must_left += 1;
        }
        list.put_back(start_of(operation));
        place = list.next[start_of(operation)];
    }
    Verdict::Linearizable
}
