//! Reading and writing a peer's socket in a task.

use std::io;

use bytes::{Buf, BytesMut};
use datastore::limits;
use tokio::net::TcpStream;

use crate::read_buffer::read_behind;

/// Reads once; the end of input is an error.
pub(crate) async fn fill(socket: &TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    loop {
        socket.readable().await?;
        match read_behind(socket, buffer)? {
            Some(0) => return Err(closed()),
            Some(_) => return Ok(()),
            None => {}
        }
    }
}

/// The line that begins what comes, without its newline; what is behind it stays in the buffer.
pub(crate) async fn read_line(socket: &TcpStream, buffer: &mut BytesMut) -> io::Result<BytesMut> {
    loop {
        if let Some(line) = take_line(buffer)? {
            return Ok(line);
        }
        fill(socket, buffer).await?;
    }
}

/// The line that begins the buffer, once it is whole.
pub(crate) fn take_line(buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
        let line = buffer.split_to(end);
        buffer.advance(1);
        return Ok(Some(line));
    }
    if buffer.len() > limits::PEER_HELLO_BYTES_MAX {
        let message = format!("a greeting has at most {} bytes", limits::PEER_HELLO_BYTES_MAX);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(None)
}

/// Writes all of it.
pub(crate) async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until the other side closes a connection on which it has nothing to say.
pub(crate) async fn until_closed(socket: &TcpStream) -> io::Error {
    let mut byte = [0];
    loop {
        if let Err(error) = socket.readable().await {
            return error;
        }
        match socket.try_read(&mut byte) {
            Ok(0) => return closed(),
            Ok(_) => {
                return io::Error::new(io::ErrorKind::InvalidData, "the peer spoke where it only listens");
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
    }
}

/// The end of input where more was to come.
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")
}
