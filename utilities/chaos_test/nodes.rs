//! The processes of a campaign: one node, or all nodes of a cluster.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use datastore_utilities::proof::Place;
use tokio::task::JoinSet;

use crate::process::Process;

/// A node's process, and its number in the cluster.
pub struct Node {
    pub node_id: u64,
    pub process: Process,
}

/// All of them; at least one.
pub struct Nodes(Vec<Node>);

impl Nodes {
    pub fn new(nodes: Vec<Node>) -> Nodes {
        Nodes(nodes)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn id(&self, place: usize) -> u64 {
        self.0[place].node_id
    }

    pub fn process(&mut self, place: usize) -> &mut Process {
        &mut self.0[place].process
    }

    /// As their clients reach them.
    pub fn places(&self) -> Vec<Place> {
        let place = |node: &Node| Place { node_id: node.node_id, address: node.process.address() };
        self.0.iter().map(place).collect()
    }

    /// Where they listen, in words.
    pub fn addresses(&self) -> String {
        let addresses = self.0.iter().map(|node| node.process.address().to_string());
        addresses.collect::<Vec<_>>().join(", ")
    }

    /// Waits for something, unless a node that runs ends meanwhile: then tells how.
    pub async fn while_running<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, String> {
        tokio::select! {
            done = awaited => Ok(done),
            failure = self.ended() => Err(failure),
        }
    }

    /// Resolves when one of those that run has ended without being asked to.
    pub async fn ended(&mut self) -> String {
        let is_one = self.0.len() == 1;
        let running = self.0.iter_mut().filter(|node| is_one || node.process.is_running());
        let ends = running.map(|node| {
            let name = if is_one { String::new() } else { format!("node {}: ", node.node_id) };
            Box::pin(async move { format!("{name}{}", node.process.ended().await) })
        });
        let mut ends: Vec<Pin<Box<_>>> = ends.collect();
        poll_fn(|context| {
            let mut polled = ends.iter_mut().map(|end| end.as_mut().poll(context));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Ends all, at once: a member that is alone may take longer.
    pub async fn end(&mut self) {
        let mut ending = JoinSet::new();
        for mut node in self.0.drain(..) {
            ending.spawn(async move { node.process.end().await });
        }
        ending.join_all().await;
    }
}
