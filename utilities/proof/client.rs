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
    /// The beginning of a reply whose end was waited for in vain.
    line: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        Client::of(TcpStream::connect(address)?, REPLY_TIMEOUT)
    }

    /// Connects, and waits for that and for each reply no longer than this.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn connect_within(address: SocketAddr, timeout: Duration) -> io::Result<Client> {
        Client::of(TcpStream::connect_timeout(&address, timeout)?, timeout)
    }

    fn of(stream: TcpStream, timeout: Duration) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Client { stream, reader, line: Vec::new() })
    }

    /// From now on each reply is waited for as long as a node may take.
    ///
    /// # Errors
    ///
    /// As the socket has them.
    pub fn be_patient(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(REPLY_TIMEOUT))
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

    /// The next reply. One that came too late can be waited for again.
    ///
    /// # Errors
    ///
    /// When there is none, or only its beginning.
    pub fn receive(&mut self) -> io::Result<Value> {
        self.reader.read_until(b'\n', &mut self.line)?;
        let line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&line).map_err(io::Error::from)
    }

    /// A request and its reply, which must be `ok`. Waits while the node starts or indexes are rebuilt.
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
            let is_under_way =
                ["index_not_ready", "starting"].iter().any(|code| reply["error"]["code"] == *code);
            if !is_under_way || Instant::now() > deadline {
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
