//! A blocking client that loses no line: what was sent and what was answered are
//! plain to see, which is all that a proof may build upon.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than a node's own `--request-timeout-ms`, so that its answer comes first.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long indexes may be rebuilt after a start.
const INDEXES_TIMEOUT: Duration = Duration::from_secs(600);
/// Between two looks at a rebuild.
const INDEXES_POLL: Duration = Duration::from_millis(2);

/// One connection.
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        Client::connect_within(address, REPLY_TIMEOUT)
    }

    /// Connects, and waits for no reply longer than that.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn connect_within(address: SocketAddr, reply_timeout: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(reply_timeout))?;
        stream.set_write_timeout(Some(reply_timeout))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Client { stream, reader })
    }

    /// Sends requests in one write.
    ///
    /// # Errors
    ///
    /// When not all of them were sent; some may have been.
    pub fn send<'r>(&mut self, requests: impl IntoIterator<Item = &'r Value>) -> io::Result<()> {
        let lines: String = requests.into_iter().map(|request| format!("{request}\n")).collect();
        self.stream.write_all(lines.as_bytes())
    }

    /// The next reply.
    ///
    /// # Errors
    ///
    /// When there is none, or only its beginning.
    pub fn receive(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    }

    /// A request and its reply, which must be `ok`. Waits while indexes are rebuilt.
    ///
    /// # Errors
    ///
    /// In words: the request and what became of it.
    pub fn ok(&mut self, request: &Value) -> Result<Value, String> {
        let deadline = Instant::now() + INDEXES_TIMEOUT;
        loop {
            let reply = self.send([request]).and_then(|()| self.receive());
            let reply = reply.map_err(|error| format!("no reply to {request}: {error}"))?;
            if reply["ok"] == json!(true) {
                return Ok(reply);
            }
            if reply["error"]["code"] != "index_not_ready" || Instant::now() > deadline {
                return Err(format!("{request} was answered {reply}"));
            }
            std::thread::sleep(INDEXES_POLL);
        }
    }

    /// Requests in one write and their replies, in order; each must be `ok`.
    ///
    /// # Errors
    ///
    /// As [`Client::ok`].
    pub fn all_ok(&mut self, requests: &[Value]) -> Result<Vec<Value>, String> {
        self.send(requests).map_err(|error| format!("requests could not be sent: {error}"))?;
        let mut replies = Vec::with_capacity(requests.len());
        for request in requests {
            let reply = self.receive().map_err(|error| format!("no reply to {request}: {error}"))?;
            if reply["ok"] != json!(true) {
                return Err(format!("{request} was answered {reply}"));
            }
            replies.push(reply);
        }
        Ok(replies)
    }
}
