//! Nodes that have fallen silent: a process that is stopped, a machine that is gone without a word.
//!
//! ```text
//!   a connection is made ──► a ping on it ──► no answer: left, and nothing was sent that could happen
//!   no byte for a third of the time ──► a ping over a connection of its own ──► an answer: it is only slow
//!                                                                          └──► none, and still no byte: left
//!   left ──► not asked while others are there ──► pinged again and again ──► answers: asked again
//! ```
//!
//! A connection says nothing of these: its system goes on to acknowledge, or packets are sent again
//! for minutes. A node that computes a slow answer is there all the same, and says so to a ping.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Between two pings of a node that was left.
const PING_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Longer than a pong, or than what a node says that has too many connections.
const OPENING_REPLY_BYTES_MAX: usize = 64 * 1024;

/// The addresses that were left, of one connector.
#[derive(Default)]
pub(super) struct SilentNodes {
    addresses: Mutex<BTreeSet<String>>,
}

impl SilentNodes {
    fn addresses(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was left, and has not answered since.
    pub fn has(&self, address: &str) -> bool {
        self.addresses().contains(address)
    }

    /// It is left, until it answers a ping. `silence`: how long it may take for that.
    pub fn add(self: &Arc<Self>, address: &str, silence: Duration) {
        if self.addresses().insert(address.to_string()) {
            tokio::spawn(until_it_answers(Arc::downgrade(self), address.to_string(), silence));
        }
    }
}

/// Ends with the connector, too.
async fn until_it_answers(nodes: Weak<SilentNodes>, address: String, silence: Duration) {
    while let Some(nodes) = nodes.upgrade() {
        if answers(&address, silence).await {
            nodes.addresses().remove(&address);
            return;
        }
        drop(nodes);
        sleep(PING_AGAIN_AFTER).await;
    }
}

/// The first line of a connection to a node beside which others can be asked: a stopped process has its system
/// accept connections, and what is sent there may happen one day.
pub(super) const OPENING: &[u8] = b"{\"op\":\"ping\",\"id\":0}\n";

/// The answer to the first line; `None`: none came in time.
pub(super) async fn opened(stream: &mut TcpStream, within: Duration) -> Option<Bytes> {
    let mut line = BytesMut::new();
    let asked = async {
        stream.write_all(OPENING).await?;
        // Nothing else was asked for: what comes ends with the line.
        while !line.ends_with(b"\n") && line.len() < OPENING_REPLY_BYTES_MAX {
            if stream.read_buf(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        std::io::Result::Ok(())
    };
    match timeout(within, asked).await {
        Ok(Ok(())) => Some(line.freeze()),
        _ => None,
    }
}

/// Whether a node answers a ping over a new connection within this time; whatever it says.
pub(super) async fn answers(address: &str, within: Duration) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"{\"op\":\"ping\"}\n").await?;
        stream.read_u8().await
    };
    matches!(timeout(within, ping).await, Ok(Ok(_)))
}
