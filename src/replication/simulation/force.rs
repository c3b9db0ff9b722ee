//! `promote` with `force`: one node goes on without the others, with all that its log
//! holds. What is judged from there on is what came of that node; whoever was left
//! behind may do as it likes, as long as nobody of the others hears of it.

use super::Mutant;
use super::cluster::Cluster;
use crate::persistence::{EntryPlaces, Membership};
use crate::replication::reconfiguration::forced_by;

impl Cluster {
    /// The operator forces this node. `is_judged`: it is the side that counts.
    pub fn force(&mut self, place: usize, is_judged: bool) {
        self.faults.figures.forced += 1;
        self.crash(place);
        let node = &mut self.nodes[place];
        let Some(membership) = node.directory.membership.clone() else { return };
        let epoch = format!("{}-{}", node.id, self.faults.figures.forced);
        let membership = forced_by(membership, node.id, epoch);
        if is_judged {
            self.epochs = membership.epochs.clone();
            let has = |index, term| node.disk.has(index, term);
            let through = node.disk.last();
            self.checker.forced(membership.base.clone(), through, has);
        }
        node.directory.store(membership);
        self.start(place);
    }

    /// Whether what this node does is part of the one history that must hold.
    pub fn is_judged(&self, place: usize) -> bool {
        let membership = self.nodes[place].directory.membership.as_ref();
        !self.nodes[place].is_beside && membership.is_some_and(|membership| membership.epochs == self.epochs)
    }

    /// What a greeting says of epochs. The mistake is not to compare them.
    pub fn epochs_of(&self, membership: Option<&Membership>) -> Vec<String> {
        let epochs = membership.map_or_else(Vec::new, |known| known.epochs.clone());
        if self.mutant == Some(Mutant::ForcedTwice) { Vec::new() } else { epochs }
    }
}

/// The voters were set by force when the node ended: what that was about the log says.
/// Whether it was so.
pub fn settle(membership: &mut Membership, places: &EntryPlaces, final_index: u64) -> bool {
    let Some(forced) = membership.forced.as_mut().filter(|forced| forced.through.is_none()) else {
        return false;
    };
    forced.through = Some(places.next_index() - 1);
    forced.committed = final_index;
    forced.terms = places.terms_from(final_index);
    true
}
