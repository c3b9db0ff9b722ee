//! Promise: a `get` with `r` is answered by so many members: each of them was asked, says it of
//! this key, once, and in answer to this question of this process of the node.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use common::addresses::own_addresses;
use common::{Client, Node, Options, PATIENCE, temporary_directory};
use datastore::engine::{Entry, Version};
use datastore::messaging::peer_frame::{PeerFrame, decode, encode};
use datastore::messaging::peer_frame_converging::Converging;
use datastore::messaging::peer_greeting::{
    GreetingAnswer, greeting_line, greeting_welcome_line, read_greeting, read_greeting_answer,
};
use datastore::persistence::NodeUuid;
use datastore::replication::dynamo::entry::encode_state;
use datastore::replication::dynamo::{Greeting, PROTOCOL, Place};
use datastore::replication::handshake::Lane;
use serde_json::{Value, json};

/// A question that a peer was asked: its number and the key.
type Asked = (u64, Bytes);

/// A member that the test scripts: it is asked, and says what it is told to.
struct Peer {
    node_id: u64,
    address: SocketAddr,
    asked: Receiver<Asked>,
}

impl Peer {
    fn listen(node_id: u64, address: SocketAddr) -> Peer {
        let listener = TcpListener::bind(address).unwrap();
        let (asks, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let asks = asks.clone();
                std::thread::spawn(move || hear(&stream, &own(node_id, address, Lane::Log), &asks));
            }
        });
        Peer { node_id, address, asked }
    }

    /// A connection on which it says things to the node.
    fn connect(&self, node: &Node) -> TcpStream {
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&greeting_line(&own(self.node_id, self.address, Lane::Log))).unwrap();
        let mut line = Vec::new();
        BufReader::new(&stream).read_until(b'\n', &mut line).unwrap();
        let answer = read_greeting_answer(&line).unwrap();
        assert!(matches!(answer, GreetingAnswer::Welcome(_)), "{answer:?}");
        stream
    }

    /// The question for this key that it is asked next.
    fn question(&self, key: &str) -> u64 {
        let since = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(since.elapsed());
            let (number, of) = self.asked.recv_timeout(left).expect("a question");
            if of == key {
                return number;
            }
        }
    }
}

/// The greeting of a peer, to node 1.
fn own(node_id: u64, address: SocketAddr, lane: Lane) -> Greeting {
    let directory = Some(NodeUuid([node_id as u8; 16]));
    let from = Place { node_id, directory, host: address.ip().to_string(), port: address.port() };
    Greeting {
        mode: "dynamo".into(),
        protocol: PROTOCOL,
        lane,
        from,
        boot: node_id,
        to: 1,
        is_new: false,
        advertise: None,
    }
}

/// Welcomes the node and takes its questions, until it is gone.
fn hear(mut stream: &TcpStream, welcome: &Greeting, asks: &Sender<Asked>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).unwrap();
    let Ok(greeting) = read_greeting(&line) else { return };
    let welcome = Greeting { lane: greeting.lane, ..welcome.clone() };
    stream.write_all(&greeting_welcome_line(&welcome)).unwrap();
    let (mut read, mut chunk) = (BytesMut::new(), [0; 4096]);
    loop {
        while let Some(frame) = decode(&mut read).expect("frames") {
            if let PeerFrame::Converging(Converging::KeyWanted { number, key }) = frame {
                // The test may be over.
                let _ = asks.send((number, key));
            }
        }
        match reader.read(&mut chunk) {
            Ok(count @ 1..) => read.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
}

fn say(mut stream: &TcpStream, number: u64, state: Bytes) {
    let mut bytes = BytesMut::new();
    encode(&mut bytes, &PeerFrame::Converging(Converging::KeyState { number, state }));
    stream.write_all(&bytes).unwrap();
}

/// What a member says of a key, from before all that the node writes itself.
fn state(key: &str, value: &str) -> Bytes {
    let mut state = BytesMut::new();
    let entry = Entry::new(Version { index: 1, ordinal: 9 }, key.as_bytes(), Some(value.as_bytes()), None);
    encode_state(&mut state, &entry);
    state.freeze()
}

fn read(key: &str, r: u64) -> Value {
    json!({"op": "get", "key": key, "r": r})
}

fn options(directory: &std::path::Path, addresses: &[SocketAddr; 3]) -> Options {
    let peer =
        |id: usize| json!({"node_id": id, "host": addresses[id - 1].ip(), "port": addresses[id - 1].port()});
    let (host, port) = (addresses[0].ip().to_string(), addresses[0].port().to_string());
    let peers = json!([peer(2), peer(3)]).to_string();
    let flags = ["--mode", "dynamo", "--node-id", "1", "--host", &host, "--port", &port, "--peers", &peers];
    Options::in_directory(directory).with(&flags).with(&["--request-timeout-ms", "2000"])
}

/// Waits until the node's questions reach both.
fn wait_until_asked(client: &mut Client, peers: &[Peer; 2]) {
    let since = Instant::now();
    loop {
        client.refused(read("first", 3));
        if peers.iter().all(|peer| peer.asked.try_iter().count() > 0) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "no question came");
    }
}

fn has_too_few(reply: &Value, came: u64) {
    assert_eq!(reply["error"]["code"], "too_stale", "{reply}");
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("{came} members have said")), "{message}");
}

#[test]
fn an_answer_counts_for_its_question_and_key_once_a_member_and_in_the_process_that_asked() {
    let (addresses, directory) = (own_addresses::<3>(), temporary_directory());
    let peers = [Peer::listen(2, addresses[1]), Peer::listen(3, addresses[2])];
    let node = options(directory.path(), &addresses).start();
    let mut client = node.client();
    wait_until_asked(&mut client, &peers);

    let said = peers.each_ref().map(|peer| peer.connect(&node));
    client.send(&read("k", 3));
    let earlier = peers[0].question("k");
    say(&said[0], earlier, state("k", "2"));
    say(&said[0], earlier, state("k", "2"));
    say(&said[1], earlier, state("another key", "3"));
    has_too_few(&client.receive(), 2);

    // An answer of then, to a question of now.
    client.send(&read("k", 2));
    let later = peers[1].question("k");
    say(&said[1], earlier, state("k", "3"));
    has_too_few(&client.receive(), 1);

    // What was said to the process before comes to the next one.
    let node = node.kill().start();
    let mut client = node.client();
    wait_until_asked(&mut client, &peers);
    let said = peers[0].connect(&node);
    client.send(&read("k", 2));
    let number = peers[0].question("k");
    for before in (0..40).map(|more| later.wrapping_sub(20).wrapping_add(more)) {
        say(&said, before, state("k", "\"of before\""));
    }
    has_too_few(&client.receive(), 1);
    client.send(&read("k", 2));
    let number_now = peers[0].question("k");
    assert_ne!(number, number_now);
    say(&said, number_now, state("k", "\"of now\""));
    assert_eq!(client.receive()["value"], "of now");
}
