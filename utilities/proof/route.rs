//! The way of a writer to the leader of a cluster.
//!
//! Who doesn't lead names the one that does, or nobody. A node that is dead refuses
//! the connection; one that is stopped accepts it and says nothing, so silence makes
//! the writer go on, too.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use crate::linearizability::Place;

/// Silence that makes a writer ask the next node: shorter than an election, so that a stopped
/// leader's successor is found soon; what a busy node says later is waited for all the same.
const SILENCE: Duration = Duration::from_millis(500);
/// Between two attempts while nobody leads.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection to one of the nodes, and which one is next.
pub(super) struct Route {
    places: Vec<Place>,
    place: usize,
    client: Option<Client>,
}

impl Route {
    pub(super) fn new(places: Vec<Place>, first: usize) -> Route {
        let place = first % places.len();
        Route { places, place, client: None }
    }

    /// The connection, and whether it is a new one. None for now when nobody is there.
    pub(super) fn connected(&mut self) -> Option<(&mut Client, bool)> {
        let is_new = self.client.is_none();
        if is_new {
            self.client = Client::connect_within(self.places[self.place].address, SILENCE).ok();
        }
        if self.client.is_none() {
            self.go_on();
        }
        self.client.as_mut().map(|client| (client, is_new))
    }

    /// Leaves the connection, and goes to the next node after a moment.
    pub(super) fn go_on(&mut self) -> Option<Client> {
        std::thread::sleep(PAUSE);
        self.place = (self.place + 1) % self.places.len();
        self.client.take()
    }

    /// Goes where a refusal sends the writer.
    pub(super) fn follow(&mut self, refusal: &Value) {
        let leader = refusal["leader"]["node_id"].as_u64();
        match self.places.iter().position(|place| Some(place.node_id) == leader) {
            Some(place) if place != self.place => (self.place, self.client) = (place, None),
            _ => drop(self.go_on()),
        }
    }
}

/// Whether a request was refused for who the node is, not for what was asked.
pub(super) fn is_sent_away(error: &Value) -> bool {
    matches!(error["code"].as_str(), Some("not_leader" | "no_leader" | "no_quorum"))
}

/// Whether a reply may still come.
pub(super) fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
