//! A peer's socket in a thread that may block: what snapshots travel through.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use datastore::limits;
use datastore::messaging::peer_frame::{PeerFrame, decode, encode};
use socket2::SockRef;

use crate::peer_greeting::{CONNECT_TIMEOUT, GREETING_TIMEOUT, prepare};
use crate::peer_socket::{closed, take_line};

/// The other side may be busy with its disk, but not for longer than this.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a thread that waits looks whether it still should.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);

/// A socket, and what was read and not yet taken.
pub(crate) struct BlockingPeer {
    socket: TcpStream,
    read: BytesMut,
    encoded: BytesMut,
}

impl BlockingPeer {
    /// Of a socket that has been greeted, and what was read of it behind the greeting.
    pub(crate) fn new(socket: TcpStream, read: BytesMut) -> io::Result<BlockingPeer> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(LOOK_UP_EVERY))?;
        socket.set_write_timeout(Some(PROGRESS_TIMEOUT))?;
        prepare(SockRef::from(&socket), PROGRESS_TIMEOUT);
        Ok(BlockingPeer { socket, read, encoded: BytesMut::new() })
    }

    /// Connects and greets; gives the answer, too.
    pub(crate) fn greet(
        address: &(String, u16),
        hello: &[u8],
        given_up: &dyn Fn() -> bool,
    ) -> io::Result<(BlockingPeer, BytesMut)> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in (address.0.as_str(), address.1).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(socket) => {
                    let mut peer = BlockingPeer::new(socket, BytesMut::new())?;
                    peer.socket.write_all(hello)?;
                    let line = peer.read_line(given_up)?;
                    return Ok((peer, line));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The other side's line.
    pub(crate) fn read_line(&mut self, given_up: &dyn Fn() -> bool) -> io::Result<BytesMut> {
        self.read_until(GREETING_TIMEOUT, given_up, take_line)
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &PeerFrame) -> io::Result<()> {
        self.encoded.clear();
        encode(&mut self.encoded, frame);
        self.socket.write_all(&self.encoded)
    }

    /// The next frame, which begins to come and goes on coming in the usual time.
    pub(crate) fn receive(&mut self, given_up: &dyn Fn() -> bool) -> io::Result<PeerFrame> {
        self.receive_within(PROGRESS_TIMEOUT, given_up)
    }

    /// The next frame, for which the other side may need longer.
    pub(crate) fn receive_within(
        &mut self,
        patience: Duration,
        given_up: &dyn Fn() -> bool,
    ) -> io::Result<PeerFrame> {
        self.read_until(patience, given_up, |read| {
            decode(read).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        })
    }

    /// Reads until `take` finds something whole. `patience` is for each read.
    fn read_until<T>(
        &mut self,
        patience: Duration,
        given_up: &dyn Fn() -> bool,
        take: impl Fn(&mut BytesMut) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        let mut progress = Instant::now();
        let mut bytes = vec![0; limits::SOCKET_READ_BYTES];
        loop {
            if let Some(taken) = take(&mut self.read)? {
                return Ok(taken);
            }
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(closed()),
                Ok(count) => {
                    self.read.extend_from_slice(&bytes[..count]);
                    progress = Instant::now();
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if given_up() || progress.elapsed() >= patience {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer doesn't answer"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A handle that can end the connection from another thread.
    pub(crate) fn handle(&self) -> io::Result<TcpStream> {
        self.socket.try_clone()
    }
}

impl Drop for BlockingPeer {
    fn drop(&mut self) {
        // A handle elsewhere must not keep the connection open. It may be closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A frame that doesn't belong where it came.
pub(crate) fn out_of_place() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the peer sent a frame that doesn't belong there")
}
