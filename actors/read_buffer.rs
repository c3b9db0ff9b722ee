//! One read buffer a thread, for all the sockets that the thread serves.
//!
//! A socket is read into it, and what came is taken out again before anyone else
//! reads: whole lines and frames by copies of their exact size, the rest of a line
//! or frame by its connection. So a read costs no memory that outlives it, and a
//! connection that has nothing half-read has no buffer at all.

use std::cell::RefCell;
use std::io;

use bytes::{BufMut, BytesMut};
use datastore::limits;
use tokio::net::TcpStream;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads once and hands what came to `take`, which must not read itself. `Ok(None)`: nothing is there yet.
pub(crate) fn read_once<T>(socket: &TcpStream, take: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
    READ.with_borrow_mut(|buffer| {
        buffer.resize(limits::SOCKET_READ_BYTES, 0);
        match socket.try_read(buffer) {
            Ok(count) => Ok(Some(take(&buffer[..count]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    })
}

/// Reads once to the end of `rest`: straight into it if it has room for a whole read, as for the
/// rest of a long frame. Gives how many bytes came; `Ok(None)`: nothing is there yet.
pub(crate) fn read_behind(socket: &TcpStream, rest: &mut BytesMut) -> io::Result<Option<usize>> {
    let room = rest.capacity() - rest.len();
    if room < limits::SOCKET_READ_BYTES {
        return read_once(socket, |bytes| {
            rest.extend_from_slice(bytes);
            bytes.len()
        });
    }
    match socket.try_read_buf(&mut rest.limit(room)) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
