//! The task behind a connector: it owns the socket.
//!
//! ```text
//!   calls ──► channel ──► writer ──► socket ──► reader ──► each call's reply
//!                            └─ in flight, in order ─┘
//! ```
//!
//! What waits in the channel while the socket is busy leaves in one write. A
//! call that its caller has given up before it was sent is not sent. When the
//! connection ends, calls in flight are told so, those still in the channel go
//! over the next connection, which is made when the next call comes. Where other
//! nodes could be asked, a node that has [fallen silent](super::silence) is left: its
//! connection ends, and what waits in the channel is to go elsewhere.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::error::{BAD_REPLY, CLIENT_TIMEOUT, CONNECTION_LOST, Error};
use super::request::Reply;
use super::silence::{SilentNodes, answers, opened};

/// Calls that leave in one write.
const CALLS_PER_WRITE_MAX: usize = 1_024;
/// Bytes after which a write isn't made longer.
const WRITE_BYTES: usize = 256 * 1024;
/// Room for a read of the socket.
const READ_BYTES: usize = 64 * 1024;
/// Longer than any reply: a page ends at 4 MiB and the values of a `bulk_get` at 32 MiB.
const REPLY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// One request on its way.
pub(super) struct Call {
    /// The line with its newline.
    pub line: Bytes,
    /// Whether the request may change something.
    pub changes: bool,
    /// Who waits; closed when nobody does.
    pub done: oneshot::Sender<Result<Reply, Error>>,
}

/// Where to, and how long to wait.
#[derive(Clone)]
pub(super) struct Target {
    pub address: String,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    /// For how long it may bring nothing before it is left; `None`: there is no other node to ask.
    pub silence: Option<Duration>,
    pub silent: Arc<SilentNodes>,
}

impl Target {
    fn is_left(&self) {
        if let Some(silence) = self.silence {
            self.silent.add(&self.address, silence);
        }
    }
}

/// A request that was handed to the socket.
struct Sent {
    changes: bool,
    at: Instant,
    deadline: Instant,
    done: oneshot::Sender<Result<Reply, Error>>,
}

/// Requests without a reply, oldest first: replies come in this order.
type InFlight = Mutex<VecDeque<Sent>>;

/// Why a connection ended.
struct Ended {
    code: &'static str,
    message: String,
    /// The node is left.
    is_silent: bool,
}

impl Ended {
    fn new(code: &'static str, message: impl Into<String>) -> Ended {
        Ended { code, message: message.into(), is_silent: false }
    }
}

/// Serves calls until every connector to this task is gone.
pub(super) async fn run(target: Target, mut calls: mpsc::Receiver<Call>) {
    while let Some(first) = calls.recv().await {
        if first.done.is_closed() {
            continue;
        }
        match connect(&target).await {
            Ok(stream) => {
                if let Some(error) = serve(&target, stream, first, &mut calls).await {
                    refuse_waiting(&error, &mut calls);
                }
            }
            Err(error) => {
                // Whoever waits waited for this connection. Who calls from now on gets another try.
                first.done.send(Err(error.clone())).ok();
                refuse_waiting(&error, &mut calls);
            }
        }
    }
}

fn refuse_waiting(error: &Error, calls: &mut mpsc::Receiver<Call>) {
    while let Ok(call) = calls.try_recv() {
        call.done.send(Err(error.clone())).ok();
    }
}

async fn connect(target: &Target) -> Result<TcpStream, Error> {
    let address = &target.address;
    let failed = |why: String| Error::not_connected(format!("no connection to {address}: {why}"));
    let within = target.silence.map_or(target.connect_timeout, |most| most.min(target.connect_timeout));
    let mut stream = timeout(within, TcpStream::connect(address))
        .await
        .map_err(|_| {
            target.is_left();
            failed(format!("not accepted within {} ms", within.as_millis()))
        })?
        .map_err(|error| failed(error.to_string()))?;
    // Requests are small and each write holds all there is: nothing is gained by waiting for more.
    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    if target.silence.is_some() {
        let Some(line) = opened(&mut stream, within).await else {
            target.is_left();
            return Err(failed(format!("it was made, and nothing came within {} ms", within.as_millis())));
        };
        // One that says why it takes no more connections is there.
        Reply::read(line, false)?;
    }
    Ok(stream)
}

/// Gives what is to be told to those in the channel, where they are to go elsewhere.
async fn serve(
    target: &Target,
    stream: TcpStream,
    first: Call,
    calls: &mut mpsc::Receiver<Call>,
) -> Option<Error> {
    let (reading, writing) = stream.into_split();
    let in_flight = InFlight::default();
    let heard = Mutex::new(Instant::now());
    let asked = Notify::new();
    let ended = tokio::select! {
        // The first call is in flight before anything is read, so that a node
        // that refuses the connection with a line tells it to somebody.
        biased;
        ended = write_requests(target, writing, first, calls, (&in_flight, &asked)) => ended,
        ended = read_replies(target, reading, &in_flight, &heard) => ended,
        ended = until_silent(target, &in_flight, &heard, &asked) => ended,
    };
    if ended.is_silent {
        // Before anyone is told, so that nobody comes back here.
        target.is_left();
    }
    let now = Instant::now();
    let message = format!("{}: {}", target.address, ended.message);
    for sent in lock(&in_flight).drain(..) {
        // Only who waited in vain is told so; the others lost their connection by it.
        let late = ended.code == CLIENT_TIMEOUT && sent.deadline > now;
        let code = if late { CONNECTION_LOST } else { ended.code };
        sent.done.send(Err(Error::unanswered(code, message.clone(), sent.changes))).ok();
    }
    ended.is_silent.then(|| Error::not_connected(message))
}

/// Ends when the node has brought nothing for as long as it may, and answers no ping either.
async fn until_silent(
    target: &Target,
    in_flight: &InFlight,
    heard: &Mutex<Instant>,
    asked: &Notify,
) -> Ended {
    let Some(silence) = target.silence else { return std::future::pending().await };
    loop {
        let asked_at = lock(in_flight).front().map(|sent| sent.at);
        let Some(asked_at) = asked_at else {
            asked.notified().await;
            continue;
        };
        let since = asked_at.max(*lock(heard));
        if since.elapsed() < silence / 3 {
            sleep_until(since + silence / 3).await;
            continue;
        }
        let left = (since + silence).saturating_duration_since(Instant::now()).max(silence / 2);
        if answers(&target.address, left).await {
            // It is there, and only slow: that counts as if it had brought something.
            *lock(heard) = Instant::now();
        } else if *lock(heard) <= since && first_deadline(in_flight).is_some() {
            let silent_ms = since.elapsed().as_millis();
            let message = format!("it has brought nothing for {silent_ms} ms and answers no ping");
            return Ended { is_silent: true, ..Ended::new(CONNECTION_LOST, message) };
        }
    }
}

async fn write_requests(
    target: &Target,
    mut socket: OwnedWriteHalf,
    first: Call,
    calls: &mut mpsc::Receiver<Call>,
    (in_flight, asked): (&InFlight, &Notify),
) -> Ended {
    let mut waiting = vec![first];
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let deadline = Instant::now() + target.timeout;
        {
            let mut in_flight = lock(in_flight);
            for call in waiting.drain(..).filter(|call| !call.done.is_closed()) {
                buffer.extend_from_slice(&call.line);
                let at = Instant::now();
                in_flight.push_back(Sent { changes: call.changes, at, deadline, done: call.done });
            }
        }
        asked.notify_one();
        if let Err(error) = socket.write_all(&buffer).await {
            return Ended::new(CONNECTION_LOST, format!("the request could not be sent: {error}"));
        }
        buffer.clear();
        buffer.shrink_to(WRITE_BYTES);
        let Some(call) = calls.recv().await else {
            return Ended::new(CONNECTION_LOST, "the connector is gone");
        };
        let mut bytes = call.line.len();
        waiting.push(call);
        while bytes < WRITE_BYTES && waiting.len() < CALLS_PER_WRITE_MAX {
            let Ok(call) = calls.try_recv() else { break };
            bytes += call.line.len();
            waiting.push(call);
        }
    }
}

async fn read_replies(
    target: &Target,
    mut socket: OwnedReadHalf,
    in_flight: &InFlight,
    heard: &Mutex<Instant>,
) -> Ended {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut scanned = 0;
    loop {
        while let Some(at) = memchr::memchr(b'\n', &buffer[scanned..]) {
            let line = take_line(&mut buffer, scanned + at + 1);
            scanned = 0;
            if let Err(ended) = answer(line, in_flight) {
                return ended;
            }
        }
        scanned = buffer.len();
        if scanned > REPLY_BYTES_MAX {
            return Ended::new(BAD_REPLY, format!("a reply of more than {REPLY_BYTES_MAX} bytes"));
        }
        buffer.reserve(READ_BYTES);
        // With nothing in flight it looks again after a while: a request may have been sent since.
        let deadline = first_deadline(in_flight).unwrap_or_else(|| Instant::now() + target.timeout);
        match timeout_at(deadline, socket.read_buf(&mut buffer)).await {
            Ok(Ok(0)) => {
                return Ended::new(CONNECTION_LOST, "the node closed the connection before it answered");
            }
            Ok(Ok(_)) => *lock(heard) = Instant::now(),
            Ok(Err(error)) => return Ended::new(CONNECTION_LOST, error.to_string()),
            Err(_) if first_deadline(in_flight).is_none_or(|deadline| deadline > Instant::now()) => {}
            Err(_) => return Ended::new(CLIENT_TIMEOUT, "no reply in time"),
        }
    }
}

/// The buffer's first line. Whoever keeps a short reply must not keep a whole read with it.
fn take_line(buffer: &mut BytesMut, length: usize) -> Bytes {
    if length >= READ_BYTES {
        return buffer.split_to(length).freeze();
    }
    let line = Bytes::copy_from_slice(&buffer[..length]);
    buffer.advance(length);
    line
}

/// Gives a line to the oldest request in flight.
fn answer(line: Bytes, in_flight: &InFlight) -> Result<(), Ended> {
    let Some(sent) = lock(in_flight).pop_front() else {
        return Err(Ended::new(BAD_REPLY, "a reply that nobody asked for"));
    };
    let reply = Reply::read(line, sent.changes);
    let bad = reply.as_ref().err().filter(|error| error.code == BAD_REPLY).map(|error| error.message.clone());
    sent.done.send(reply).ok();
    // Behind garbage no line can be trusted to belong to its request.
    bad.map_or(Ok(()), |message| Err(Ended::new(BAD_REPLY, message)))
}

fn first_deadline(in_flight: &InFlight) -> Option<Instant> {
    lock(in_flight).front().map(|sent| sent.deadline)
}

/// The locks are held for pushes, pops and reads only, which leave what they guard whole whatever happens.
fn lock<T>(guarded: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}
