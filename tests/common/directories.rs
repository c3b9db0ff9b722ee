//! Nodes whose directories are lost, or older than they were.

use std::path::Path;

use datastore::persistence::LOCK_FILE;
use serde_json::json;

use super::Cluster;
use super::members::members;
use super::network::Id;
use crate::common::temporary_directory;

/// How a directory comes to be an older one.
#[derive(Clone, Copy, PartialEq)]
pub enum Back {
    /// Its files were copied.
    Restored,
    /// Its disk was set back: no file can be told from what it was.
    RolledBack,
}

fn copy(from: &Path, to: &Path) {
    let from = format!("{}/.", from.display());
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.expect("cp runs").success());
}

impl Cluster {
    /// A copy of the directory of a node that doesn't run.
    pub fn backup(&self, id: Id) -> tempfile::TempDir {
        assert!(!self.is_started(id), "node {id} runs");
        let kept = temporary_directory();
        copy(self.directory(id), kept.path());
        kept
    }

    /// Gives a node that doesn't run an older copy of its directory.
    pub fn put_back(&self, id: Id, kept: &Path, back: Back) {
        assert!(!self.is_started(id), "node {id} runs");
        let directory = self.directory(id);
        for entry in std::fs::read_dir(directory).expect("it is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).expect("it can be removed");
            } else if back == Back::Restored || !path.ends_with(LOCK_FILE) {
                std::fs::remove_file(path).expect("it can be removed");
            }
        }
        copy(kept, directory);
    }

    /// Asks one node to evict another one, and waits until all others that run know it.
    pub fn evict(&self, at: Id, gone: Id) {
        let reply = self.ok_at(at, &json!({"op": "evict", "node_id": gone}));
        assert!(!members(&reply).contains(&gone), "{reply}");
        for id in self.running().into_iter().filter(|id| *id != gone) {
            self.wait_for_view(id, &format!("node {gone} is no member"), |view| {
                !members(view).contains(&gone)
            });
        }
    }
}
