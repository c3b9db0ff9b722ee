//! What every part of the bench needs: where things are, waiting with a bound,
//! runs of the load generator that count only when they are perfect.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use datastore_utilities::load::{Interrupt, Outcome, Plan, Protocol, run};

use crate::process::Process;

/// Nothing takes so long, except on a machine that is far too busy for figures.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often something that can't be waited for is looked at.
const POLL_EVERY: Duration = Duration::from_millis(2);
/// How long the processor time of the servers is watched, and how much of it is
/// rest: idle members keep sending heartbeats.
const REST_LOOK: Duration = Duration::from_millis(100);
const REST_CPU: Duration = Duration::from_millis(20);

/// Where things are, and whether to stop.
pub struct Bench {
    /// The node's program.
    pub node: PathBuf,
    /// Where the servers' directories are made.
    pub directory: PathBuf,
    /// Asked while anything is waited for.
    pub interrupt: Interrupt,
}

impl Bench {
    /// An error when someone asked to stop.
    pub fn check(&self) -> Result<(), String> {
        if self.interrupt.is_asked() { Err("interrupted".into()) } else { Ok(()) }
    }

    /// Looks again and again until there is something.
    pub fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            self.check()?;
            if Instant::now() > deadline {
                return Err(format!("waited {} s in vain until {what}", PATIENCE.as_secs()));
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Waits until the servers are at rest, so that none works in another's time.
    pub fn rest(&self, servers: [&[Process]; 2]) -> Result<(), String> {
        let cpu = || servers.iter().copied().flatten().map(Process::cpu).sum::<Result<Duration, String>>();
        self.wait("the servers are at rest", || {
            let before = cpu()?;
            std::thread::sleep(REST_LOOK);
            Ok((cpu()? <= before + REST_CPU).then_some(()))
        })
    }

    /// A run of the load generator, whatever became of it.
    pub fn load<P: Protocol>(
        &self,
        address: SocketAddr,
        protocol: &P,
        plan: &Plan,
    ) -> Result<Outcome, String> {
        let outcome = run(address, protocol, plan, &mut |_| !self.interrupt.is_asked())?;
        if outcome.answered == 0 {
            return Err(format!("no answer from {address}: {}", outcome.failure().unwrap_or_default()));
        }
        Ok(outcome)
    }
}

/// The outcome, if it is perfect.
pub fn perfect(outcome: Outcome, who: &str) -> Result<Outcome, String> {
    let missing = (outcome.misses > 0).then(|| format!("{} keys were not found", outcome.misses));
    match outcome.failure().or(missing) {
        Some(failure) => Err(format!("a run against {who} failed: {failure}")),
        None => Ok(outcome),
    }
}
