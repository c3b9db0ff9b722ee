//! Nodes that greet each other: who is let in, who isn't, and what both sides say about it.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use cluster::Cluster;
use common::addresses::own_addresses;
use common::{Client, Node, Options, PATIENCE, temporary_directory};
use datastore::messaging::peer_frame::{PeerFrame, SnapshotBegin, decode, encode};
use datastore::messaging::peer_hello::hello_line;
use datastore::persistence::{FileDisk, Membership, NodeUuid};
use datastore::replication::handshake::{Hello, Lane, PROTOCOL};
use datastore::replication::message::{EntryKind, LogEntry, Message, MessageKind, SnapshotMark};
use datastore_utilities::linearizability as load;
use serde_json::{Value, json};

/// Node `node_id` of a cluster whose nodes 1, 2, … listen at these addresses.
fn member(directory: &Path, node_id: usize, addresses: &[SocketAddr]) -> Options {
    let peers: Vec<Value> = (1..=addresses.len())
        .filter(|peer| *peer != node_id)
        .map(|peer| json!({"node_id": peer, "host": addresses[peer - 1].ip(), "port": addresses[peer - 1].port()}))
        .collect();
    let address = addresses[node_id - 1];
    let role = if node_id == 1 { "primary" } else { "secondary" };
    Options::in_directory(directory).with(&[
        "--node-id",
        &node_id.to_string(),
        "--host",
        &address.ip().to_string(),
        "--port",
        &address.port().to_string(),
        "--peers",
        &json!(peers).to_string(),
        "--role",
        role,
    ])
}

fn membership(directory: &Path) -> Membership {
    Membership::load(&FileDisk::read_only(directory)).unwrap().expect("a membership")
}

/// Two nodes that have met.
fn two_members(first: &Path, second: &Path, addresses: &[SocketAddr]) -> (Node, Node) {
    let mut secondary = member(second, 2, addresses).start();
    let mut founder = member(first, 1, addresses).start();
    secondary.wait_for_log("adopted: this node is a member");
    secondary.wait_for_log("connected to a peer");
    founder.wait_for_log("connected to a peer");
    (founder, secondary)
}

/// Waits until this client is the only one that counts as connected. Whoever was refused counts until
/// the node has noticed that the connection has ended, which can be after its other side has.
fn until_one_connection_is_open(client: &mut Client) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connections = client.ok(json!({"op": "stats", "section": "connections"}));
        if connections["connections"]["open"] == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "{connections}");
    }
}

/// A connection that speaks as a peer does.
struct Peer {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Peer {
    fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Peer { stream, reader }
    }

    fn greet(address: SocketAddr, hello: &Hello) -> (Peer, Value) {
        let mut peer = Peer::connect(address);
        let answer = peer.say(&hello_line(hello));
        (peer, answer)
    }

    /// Sends bytes; gives the line that comes back.
    fn say(&mut self, bytes: &[u8]) -> Value {
        self.stream.write_all(bytes).unwrap();
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn send(&mut self, frame: &PeerFrame) {
        let mut bytes = BytesMut::new();
        encode(&mut bytes, frame);
        self.stream.write_all(&bytes).unwrap();
    }

    fn receive(&mut self) -> PeerFrame {
        let mut read = BytesMut::new();
        loop {
            if let Some(frame) = decode(&mut read).unwrap() {
                assert!(read.is_empty());
                return frame;
            }
            let more = self.reader.fill_buf().unwrap();
            assert!(!more.is_empty(), "the node closed the connection");
            read.extend_from_slice(more);
            let count = more.len();
            self.reader.consume(count);
        }
    }

    /// Waits until the node has closed the connection.
    fn expect_end(mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
            // It closed with bytes of ours unread.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }

    fn is_open(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let ended = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        matches!(ended, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

fn hello(membership: &Membership, node_id: u64, to: u64, lane: Lane) -> Hello {
    let node = membership.member(node_id).and_then(|member| member.node).unwrap_or(NodeUuid([9; 16]));
    Hello {
        protocol: PROTOCOL,
        lane,
        cluster: Some(membership.cluster.clone()),
        epoch: 0,
        epochs: vec![],
        configuration: 0,
        node_id,
        node,
        boot: 1,
        to,
        in_doubt: false,
        advertise: None,
        membership: None,
    }
}

#[test]
fn a_founder_adopts_its_peers_and_they_know_each_other_from_then_on() {
    let directories = [(); 3].map(|()| temporary_directory());
    let addresses = own_addresses::<3>();
    let mut third = member(directories[2].path(), 3, &addresses).start();
    let (founder, mut second) = two_members(directories[0].path(), directories[1].path(), &addresses);
    third.wait_for_log("adopted: this node is a member");
    for (node, peer) in [(&mut second, 3), (&mut third, 2)] {
        node.wait_for_log(&format!(r#""message":"connected to a peer","peer":{peer}"#));
    }
    let known: Vec<Membership> = directories.iter().map(|directory| membership(directory.path())).collect();
    assert!(known.iter().all(|each| *each == known[0]), "{known:?}");
    assert!(known[0].configuration.nodes.iter().all(|member| member.node.is_some()), "{known:?}");

    // A node that comes back with its directory is let in, whatever its role says.
    let (_, options) = third.terminate();
    let mut third = options.with(&["--role", "primary"]).start();
    third.wait_for_log(r#""message":"connected to a peer","peer":1"#);
    assert_eq!(membership(directories[2].path()), known[0]);
    assert!(!third.log().contains("adopted") && !third.log().contains("founded"), "{}", third.log());
    drop((founder, second));
}

#[test]
fn a_member_that_lost_its_directory_is_not_let_in_and_both_sides_say_so() {
    let [first, second, empty] = [(); 3].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let (mut founder, secondary) = two_members(first.path(), second.path(), &addresses);
    drop(secondary);
    let mut wiped = member(empty.path(), 2, &addresses).start();
    for node in [&mut founder, &mut wiped] {
        let said = node.wait_for_log("it has lost its data");
        assert!(said.contains("node 2 had directory"), "{said}");
    }
    drop(wiped);
    assert_eq!(Membership::load(&FileDisk::read_only(empty.path())).unwrap(), None);
    // With its directory it is a member again.
    let mut secondary = member(second.path(), 2, &addresses).start();
    secondary.wait_for_log("connected to a peer");
}

#[test]
fn a_founder_that_lost_its_directory_does_not_found_again() {
    let [first, second, empty] = [(); 3].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let (founder, mut secondary) = two_members(first.path(), second.path(), &addresses);
    drop(founder);
    // It may find out before it serves, or a moment later.
    match member(empty.path(), 1, &addresses).try_start() {
        Ok(mut wiped) => {
            assert_eq!(wiped.wait().code(), Some(1));
            wiped.wait_for_log("its peer belongs to another one");
        }
        Err((status, log)) => {
            assert_eq!(status.code(), Some(1));
            assert!(log.contains("its peer belongs to another one"), "{log}");
        }
    }
    secondary.wait_for_log("has nothing to say to one of cluster");
}

#[test]
fn an_address_that_leads_to_another_node_is_told_on_both_sides() {
    let [first, second] = [(); 2].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let mut founder = member(first.path(), 1, &addresses).start();
    let mut third = member(second.path(), 2, &addresses).with(&["--node-id", "3"]).start();
    for node in [&mut founder, &mut third] {
        let said = node.wait_for_log("node 2 was meant");
        assert!(said.contains("this is the address of node 3"), "{said}");
    }
}

#[test]
fn strangers_are_told_why_they_are_refused() {
    let [first, second, alone] = [(); 3].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let (founder, secondary) = two_members(first.path(), second.path(), &addresses);
    let known = membership(first.path());
    let good = hello(&known, 2, 1, Lane::Log);
    let other_cluster = Hello { cluster: Some("f".repeat(32)), ..good.clone() };
    for (hello, code, reason) in [
        (Hello { protocol: (8, 9), ..good.clone() }, "unsupported_protocol", "speaks versions 8 to 9"),
        (Hello { to: 7, ..good.clone() }, "bad_request", "node 7 was meant"),
        (Hello { node_id: 1, ..good.clone() }, "bad_request", "two nodes have node id 1"),
        (Hello { node_id: 7, ..good.clone() }, "bad_request", "node 7 is no member"),
        (Hello { node: NodeUuid([9; 16]), ..good.clone() }, "bad_request", "lost its data"),
        (Hello { cluster: None, ..good.clone() }, "starting", "waits to be adopted"),
        (other_cluster, "bad_request", "cluster ffff"),
    ] {
        let (peer, answer) = Peer::greet(founder.address, &hello);
        let error = &answer["error"];
        assert!(answer["ok"] == false && error["code"] == code, "{answer}");
        assert!(error["message"].as_str().unwrap().contains(reason), "{answer}");
        assert_eq!(answer["cluster"], known.cluster, "{answer}");
        peer.expect_end();
    }
    let mut garbled = Peer::connect(founder.address);
    let answer = garbled.say(b"{\"op\":\"peer\",\"lane\":7}\n");
    assert_eq!(answer["error"]["code"], "bad_request", "{answer}");
    garbled.expect_end();

    let alone = Options::in_directory(alone.path()).start();
    let (peer, answer) = Peer::greet(alone.address, &good);
    assert_eq!(answer["error"]["code"], "unsupported_in_mode", "{answer}");
    peer.expect_end();
    drop((founder, secondary));
}

#[test]
fn garbage_ends_its_own_session_and_nothing_else() {
    let [first, second] = [(); 2].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let (mut founder, secondary) = two_members(first.path(), second.path(), &addresses);
    drop(secondary);
    let known = membership(first.path());
    let greet = |lane| {
        let (peer, answer) = Peer::greet(founder.address, &hello(&known, 2, 1, lane));
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!((&answer["protocol"], &answer["node_id"]), (&json!(PROTOCOL.1), &json!(1)), "{answer}");
        peer
    };
    let (mut log, mut heartbeats) = (greet(Lane::Log), greet(Lane::Heartbeat));
    log.send(&PeerFrame::ReadProbe { number: 1 });
    log.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    log.expect_end();
    heartbeats.send(&PeerFrame::ReadProbe { number: 2 });
    assert!(heartbeats.is_open());

    // Frames that belong to another lane end the session, too.
    let mut misplaced = greet(Lane::Log);
    misplaced.send(&PeerFrame::SnapshotEnd);
    misplaced.expect_end();

    // A peer that connects again has given up what it had.
    let mut again = greet(Lane::Heartbeat);
    heartbeats.expect_end();
    assert!(again.is_open());
    // A process that comes as another one of the same directory waits until that one is gone.
    let twice = Hello { boot: 2, ..hello(&known, 2, 1, Lane::Log) };
    let is_refused = |_| {
        // Whoever says nothing for a second counts as gone, which a slow machine may take for a frame.
        again.send(&PeerFrame::ReadProbe { number: 3 });
        let (_, answer) = Peer::greet(founder.address, &twice);
        answer["error"]["message"].as_str().is_some_and(|reason| reason.contains("only one of them may run"))
    };
    assert!((0..20).any(is_refused));
    // Sessions are no clients.
    let mut client = founder.client();
    until_one_connection_is_open(&mut client);
    founder.wait_for_log("brought what is no frame");
}

#[test]
fn a_greeting_in_pieces_is_a_greeting_and_a_request_that_looks_like_one_is_a_request() {
    let [first, second] = [(); 2].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let (founder, secondary) = two_members(first.path(), second.path(), &addresses);
    drop(secondary);
    let line = hello_line(&hello(&membership(first.path()), 2, 1, Lane::Log));
    let mut peer = Peer::connect(founder.address);
    peer.stream.set_nodelay(true).unwrap();
    let (last, pieces) = line.split_last().unwrap();
    for piece in pieces.chunks(5) {
        peer.stream.write_all(piece).unwrap();
        // The node answers another client: it has had the chance to read that piece alone.
        founder.client().ok(json!({"op": "ping"}));
    }
    assert_eq!(peer.say(&[*last])["ok"], true);

    let mut client = founder.client();
    assert_eq!(client.refused(json!({"op": "peer"}))["code"], "unknown_op");
    client.ok(json!({"op": "ping"}));
    client.send_raw(b"{\"op\":\"peer\",\"id\":1}\n");
    let reply = client.receive();
    assert_eq!(reply["error"]["code"], "unknown_op", "{reply}");
}

/// A snapshot from node 2 for node 1.
fn begin_snapshot(known: &Membership, index: u64, file_bytes: u64) -> SnapshotBegin {
    let mark = SnapshotMark { index, term: 4, ..SnapshotMark::default() };
    let message = Message { snapshot: Some(mark), ..Message::new(MessageKind::Snapshot, 2, 1, 4) };
    SnapshotBegin { message, node: known.member(2).unwrap().node.unwrap(), file_bytes, after: index - 2 }
}

fn chunk(offset: u64, bytes: &'static [u8]) -> PeerFrame {
    PeerFrame::SnapshotChunk { offset, bytes: Bytes::from_static(bytes) }
}

#[test]
fn a_snapshot_that_broke_off_goes_on_where_it_ended_and_another_one_begins_anew() {
    let [first, second] = [(); 2].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let (mut founder, secondary) = two_members(first.path(), second.path(), &addresses);
    drop(secondary);
    let known = membership(first.path());
    let address = founder.address;
    let offer = |begin: &SnapshotBegin| {
        let (mut peer, answer) = Peer::greet(address, &hello(&known, 2, 1, Lane::Snapshot));
        assert_eq!(answer["ok"], true, "{answer}");
        peer.send(&PeerFrame::SnapshotBegin(begin.clone()));
        let offset = match peer.receive() {
            PeerFrame::SnapshotResume { offset } => offset,
            other => panic!("{other:?}"),
        };
        (peer, offset)
    };
    let begin = begin_snapshot(&known, 9, 10);
    let (mut peer, offset) = offer(&begin);
    assert_eq!(offset, 0);
    peer.send(&chunk(0, b"0123"));
    // A chunk that leaves a gap ends the connection; what was in order stays.
    peer.send(&chunk(5, b"5"));
    peer.expect_end();
    let (peer, offset) = offer(&begin);
    assert_eq!(offset, 4);
    let (mut newer, offset) = offer(&begin_snapshot(&known, 10, 10));
    assert_eq!(offset, 0, "another snapshot");
    peer.expect_end();
    newer.send(&chunk(0, b"abc"));
    newer.send(&PeerFrame::SnapshotEnd);
    newer.expect_end();
    founder.wait_for_log("3 of the file's 10 bytes came");

    // One that is whole, and no snapshot: it is not taken, and nothing of it stays.
    let (mut peer, offset) = offer(&begin_snapshot(&known, 10, 10));
    assert_eq!(offset, 3);
    peer.send(&chunk(3, b"defghij"));
    assert_eq!(std::fs::read(first.path().join("snapshots/received")).unwrap()[..3], *b"abc");
    let entry = |index| LogEntry { index, term: 4, kind: EntryKind::Empty, payload: Bytes::new() };
    peer.send(&PeerFrame::SnapshotEntries(vec![entry(9), entry(10)]));
    peer.send(&PeerFrame::SnapshotEnd);
    assert_eq!(peer.receive(), PeerFrame::SnapshotResult { taken: false });
    assert!(!first.path().join("snapshots/received").exists());
    peer.expect_end();
}

#[test]
fn what_an_earlier_process_received_in_part_is_removed() {
    let [first, second] = [(); 2].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let (founder, secondary) = two_members(first.path(), second.path(), &addresses);
    drop(secondary);
    let (_, options) = founder.terminate();
    let leftover = first.path().join("snapshots/received");
    std::fs::write(&leftover, "part of it").unwrap();
    let _founder = options.start();
    assert!(!leftover.exists());
}

#[test]
fn a_replica_that_lags_behind_the_log_gets_a_snapshot_and_what_follows() {
    let mut cluster = Cluster::start_with(3, &["--segment-bytes", "65536"]);
    cluster.wait_until_leads(1);
    for number in 0..2 {
        cluster.ok(&json!({"op": "set", "key": "before", "value": number}));
        cluster.wait_until("the replica has a snapshot of its own", |cluster| {
            cluster.call(3, &json!({"op": "snapshot"})).is_ok_and(|reply| reply["ok"] == true)
        });
    }
    cluster.ok(&json!({"op": "delete", "key": "before"}));
    cluster.kill(3);
    let value = "x".repeat(10_000);
    // The log is cut when its second snapshot is there.
    for round in 0..3 {
        for number in 0..20 {
            let key = format!("round-{round}-{number}");
            cluster.ok(&json!({"op": "set", "key": key, "value": value}));
        }
        cluster.ok(&json!({"op": "delete", "key": format!("round-{round}-0")}));
        cluster.ok(&json!({"op": "snapshot"}));
    }
    cluster.restart(3);
    cluster.ok(&json!({"op": "set", "key": "later", "value": 1}));
    cluster.wait_until("the replica holds all", |cluster| {
        cluster.contents(3).is_some_and(|contents| contents.len() == 3 * 19 + 1)
    });
    assert_eq!(cluster.contents(3), cluster.contents(1));
    assert!(cluster.log(3).contains("a snapshot was received"), "{}", cluster.log(3));
    let files = std::fs::read_dir(cluster.directory(3).join("snapshots")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 1, "earlier ones are of no use any more: {files:?}");
    // What it got is its own: it comes back from its own disk.
    cluster.kill(3);
    cluster.restart(3);
    let contents = cluster.converge();
    assert_eq!(contents.keys().filter(|key| key.starts_with("round")).count(), 3 * 19);
}

/// Under load a log is cut again and again, and a snapshot takes its time: what comes meanwhile is kept for who gets it.
#[test]
fn a_replica_catches_up_under_load_by_one_snapshot() {
    const KEYS: usize = 2_000;
    let small_log = ["--segment-bytes", "65536", "--snapshot-every-bytes", "262144"];
    let mut cluster = Cluster::start_with(3, &small_log);
    cluster.wait_until_leads(1);
    let filler = "every value has words to index ".repeat(400);
    let set = |number: usize| json!({"op": "set", "key": format!("k{}", number % KEYS), "value": format!("{number} {filler}")});
    (0..KEYS).for_each(|number| drop(cluster.ok(&set(number))));
    cluster.kill(3);
    (0..KEYS).for_each(|number| drop(cluster.ok(&set(number))));
    let (dial, places) = (cluster.load("overwrites").dial, cluster.places());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = load::Client::connect(&dial, places[0].address, PATIENCE).expect("it listens");
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                let reply = client.call(&set(number)).expect("it answers");
                assert_eq!(reply["ok"], true, "{reply}");
            }
        });
        cluster.restart(3);
        cluster.wait_until("it has caught up while the writes go on", |cluster| {
            cluster.members_serving().len() == 3
        });
        is_over.store(true, Ordering::Relaxed);
    });
    let sent = cluster.log(1).matches("sending a snapshot").count();
    assert_eq!(sent, 1, "so many snapshots were sent");
    let contents = cluster.converge();
    assert_eq!(contents.len(), KEYS);
    cluster.wait_until("the log is cut again", |cluster| {
        let stats = cluster.call(1, &json!({"op": "stats", "section": "wal"})).expect("it answers");
        stats["wal"]["held_for"] == json!([])
    });
}

#[test]
fn clients_that_fill_a_node_keep_no_peer_out() {
    let [first, second] = [(); 2].map(|()| temporary_directory());
    let addresses = own_addresses::<2>();
    let founder = member(first.path(), 1, &addresses).with(&["--max-connections", "1"]).start();
    let mut client = founder.client();
    client.ok(json!({"op": "ping"}));
    let mut secondary = member(second.path(), 2, &addresses).start();
    secondary.wait_for_log("connected to a peer");
    let refused = founder.client().receive();
    assert_eq!(refused["error"]["code"], "too_many_connections", "{refused}");
    let stranger =
        Peer::greet(founder.address, &Hello { to: 7, ..hello(&membership(first.path()), 2, 1, Lane::Log) });
    assert_eq!(stranger.1["error"]["code"], "bad_request", "{}", stranger.1);
    until_one_connection_is_open(&mut client);
}
