//! One connection: a batch of requests out, its replies in.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::protocol::{Answer, Asked, Protocol};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for the replies to a usual batch.
const INPUT_BYTES: usize = 1 << 14;
/// No reply is longer: the largest value, escaped as badly as can be.
const INPUT_BYTES_MAX: usize = 1 << 26;

/// A socket that never blocks, and what goes through it.
pub struct Connection<P> {
    protocol: P,
    pub stream: TcpStream,
    /// The batch's requests, and how far they have been sent.
    pub output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// The part of `input` that is read and not yet taken.
    start: usize,
    end: usize,
    /// The batch, and how many of it are answered.
    pub batch: Vec<Asked>,
    pub answered: usize,
    /// When the batch was sent.
    pub sent_at: Instant,
    /// Whether the socket had no room for all of the batch.
    pub is_blocked: bool,
}

impl<P: Protocol> Connection<P> {
    pub fn open(address: SocketAddr, protocol: P) -> io::Result<Connection<P>> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            protocol,
            stream,
            output: Vec::new(),
            sent: 0,
            input: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
            batch: Vec::new(),
            answered: 0,
            sent_at: Instant::now(),
            is_blocked: false,
        })
    }

    /// Requests without a reply.
    pub fn waiting(&self) -> usize {
        self.batch.len() - self.answered
    }

    /// Sends what the socket takes of the batch.
    pub fn send(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.is_blocked = false;
        self.sent = 0;
        self.output.clear();
        Ok(())
    }

    /// Reads once.
    pub fn receive(&mut self) -> io::Result<()> {
        if self.end == self.input.len() {
            self.make_room()?;
        }
        match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(bytes) => {
                self.end += bytes;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn make_room(&mut self) -> io::Result<()> {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.input.len() {
            if self.end >= INPUT_BYTES_MAX {
                return Err(io::Error::new(ErrorKind::InvalidData, "a reply that doesn't end"));
            }
            self.input.resize(self.end * 2, 0);
        }
        Ok(())
    }

    /// The next whole reply of what was read.
    pub fn reply(&mut self) -> Option<Answer<'_>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            return None;
        }
        let (answer, taken) = self.protocol.reply(&self.input[self.start..self.end])?;
        self.start += taken;
        Some(answer)
    }

    /// Writes the next request of the batch.
    pub fn ask(&mut self, asked: Asked, key: &[u8], value: &[u8]) {
        if asked.is_read {
            self.protocol.get(key, &mut self.output);
        } else {
            self.protocol.set(key, value, &mut self.output);
        }
        self.batch.push(asked);
    }

    /// Whether more came than was asked for.
    pub fn has_more(&self) -> bool {
        self.start < self.end && !P::IS_CHATTY
    }
}
