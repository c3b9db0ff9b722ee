//! A cluster under the load of clients whose answers are held to linearizability.

use std::sync::Arc;

use datastore_utilities::linearizability::{Load, Recorder, Report, STEPS_MAX, Workload, check, read_back};
use datastore_utilities::random::Random;

use super::Cluster;
use crate::common::PATIENCE;

/// Rounds of faults of each test.
pub const ROUNDS_VARIABLE: &str = "DATASTORE_FAULT_ROUNDS";

/// How many rounds of faults: what is given, or so many.
pub fn rounds(default: usize) -> usize {
    std::env::var(ROUNDS_VARIABLE).map_or(default, |rounds| rounds.parse().expect("a number"))
}

/// Clients at work.
pub struct UnderLoad {
    load: Load,
    recorder: Arc<Recorder>,
    workload: Workload,
}

impl UnderLoad {
    /// Starts the clients.
    pub fn start(load: Load, random: &mut Random) -> UnderLoad {
        let recorder = Arc::new(Recorder::new());
        let workload = Workload::start(&load, &recorder, random);
        UnderLoad { load, recorder, workload }
    }

    /// Waits until so many more requests were answered, whatever else fails.
    pub fn wait_for_answers(&self, cluster: &Cluster, more: usize) {
        let target = self.recorder.answered() + more;
        cluster.wait_until("clients are answered", |_| self.recorder.answered() >= target);
    }

    /// Ends the load and the faults, lets the cluster come to rest, reads back all that was
    /// written, and holds every answer to it.
    pub fn finish(self, cluster: &mut Cluster) -> Report {
        self.workload.stop();
        cluster.converge();
        read_back(&self.load, &self.recorder, PATIENCE).expect("every key is read back");
        let report = check(&self.recorder.history(), STEPS_MAX);
        println!("{}: {report}", self.load.prefix);
        assert!(report.is_linearizable(), "{}: {report}", self.load.prefix);
        assert!(report.counts.reads > 0 && report.counts.answered > report.counts.reads, "{report}");
        report
    }
}
