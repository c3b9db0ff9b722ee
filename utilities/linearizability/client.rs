//! A blocking connection on which it is plain whether a request can have been read
//! by anybody: that decides between "never" and "nobody knows".

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// A node of the cluster, as its clients reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number in the cluster: what a replica's answer names its leader by. The
    /// address that stands beside it may be one that only nodes use.
    pub node_id: u64,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Opens connections, with a bound on how long that may take: a test's nodes may be
/// in a network of their own.
pub type Dial = Arc<dyn Fn(SocketAddr, Duration) -> io::Result<TcpStream> + Send + Sync>;

/// Connections of this process's own network.
pub fn dial() -> Dial {
    Arc::new(|address, timeout| TcpStream::connect_timeout(&address, timeout))
}

/// One connection, one request at a time.
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects. Each reply will be waited for as long as `timeout`.
    ///
    /// # Errors
    ///
    /// As the socket has them: nothing was sent.
    pub fn connect(dial: &Dial, address: SocketAddr, timeout: Duration) -> io::Result<Client> {
        let stream = dial(address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Client { stream, reader })
    }

    /// A request and its reply.
    ///
    /// # Errors
    ///
    /// The request may or may not have been read. The connection is of no use any
    /// more: a reply that is late would be taken for the next one's.
    pub fn call(&mut self, request: &Value) -> io::Result<Value> {
        self.stream.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    }
}
