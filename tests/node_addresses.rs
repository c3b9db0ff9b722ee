//! Promise: an address that a node is given is one that leads somewhere, or is refused at the start; and what a node
//! tells of addresses leads to the node that it names.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use common::addresses::own_addresses;
use common::{Client, Node, Options, temporary_directory};
use serde_json::{Value, json};

/// A node with number `id` and role by it, whose peer is the other one of two, at `peer`.
fn member(directory: &Path, id: u64, port: u16, peer: (&str, u16), flags: &[&str]) -> Options {
    let peers = json!([{"node_id": 3 - id, "host": peer.0, "port": peer.1}]).to_string();
    let role = if id == 1 { "primary" } else { "secondary" };
    let (id, port) = (id.to_string(), port.to_string());
    Options::in_directory(directory)
        .with(&["--node-id", &id, "--port", &port, "--role", role, "--peers", &peers])
        .with(flags)
}

/// It listens on all addresses of the machine.
fn everywhere(options: Options) -> Options {
    let mut options = options.with(&["--host", "0.0.0.0"]);
    options.arguments.push("--insecure".into());
    options
}

fn at(ip: &str, node: &Node) -> Client {
    Client::connect(SocketAddr::new(ip.parse().unwrap(), node.address.port()))
}

fn place(of: &Value) -> (Value, Value) {
    (of["host"].clone(), of["port"].clone())
}

fn refusal_of(flags: &[&str]) -> String {
    let directory = temporary_directory();
    match Options::in_directory(directory.path()).with(flags).try_start() {
        Ok(_) => panic!("{flags:?} were taken"),
        Err((status, log)) => {
            assert_eq!(status.code(), Some(2), "{log}");
            log
        }
    }
}

#[test]
fn addresses_that_lead_nowhere_are_refused_at_the_start() {
    for host in ["[::1", "::g", "http://a", "a:9000", "0.0.0.0", "[::]", ""] {
        let peers = json!([{"node_id": 2, "host": host, "port": 9001}]).to_string();
        let said = refusal_of(&["--peers", &peers]);
        assert!(said.contains("--peers: node 2: host") && said.contains("wants"), "{said}");
    }
    for advertise in ["db", "db:0", "::1:9000", "0.0.0.0:9000", "[::1:9000"] {
        assert!(refusal_of(&["--advertise", advertise]).contains("--advertise"), "{advertise}");
    }
    assert!(refusal_of(&["--host", "[::1"]).contains("--host"));
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    for host in ["[::", "a:1", "0.0.0.0", "a b"] {
        let error =
            node.client().refused(json!({"op": "add_member", "node_id": 2, "host": host, "port": 9001}));
        assert_eq!(error["code"], "bad_request", "{error}");
        assert!(error["message"].as_str().unwrap().contains("host"), "{error}");
    }
}

#[test]
fn an_ipv6_address_may_have_its_brackets() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: there is no IPv6 here");
        return;
    }
    let [first, second] = [(); 2].map(|()| temporary_directory());
    let ports: Vec<u16> = own_addresses::<2>().iter().map(SocketAddr::port).collect();
    let host = ["--host", "[::1]"];
    let mut secondary = member(second.path(), 2, ports[1], ("[::1]", ports[0]), &host).start();
    let _founder = member(first.path(), 1, ports[0], ("::1", ports[1]), &host).start();
    secondary.wait_for_log("adopted: this node is a member");
    let error = until_a_leader_is_named(&secondary);
    assert_eq!(place(&error["leader"]), (json!("::1"), json!(ports[0])), "{error}");
}

/// Ports that are free on all of the machine's addresses, a moment ago.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listeners: Vec<TcpListener> =
        (0..COUNT).map(|_| TcpListener::bind("0.0.0.0:0").expect("a port")).collect();
    std::array::from_fn(|place| listeners[place].local_addr().expect("it is bound").port())
}

fn until_a_leader_is_named(node: &Node) -> Value {
    loop {
        let error = node.client().refused(json!({"op": "set", "key": "k", "value": 1}));
        if error["code"] == "not_leader" {
            return error;
        }
    }
}

#[test]
fn a_node_that_listens_everywhere_names_the_address_by_which_it_was_reached() {
    let directory = temporary_directory();
    let node = everywhere(Options::in_directory(directory.path())).start();
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let mut client = at(ip, &node);
        let expected = (json!(ip), json!(node.address.port()));
        assert_eq!(place(&client.ok(json!({"op": "hello"}))["leader"]), expected);
        let cluster = client.ok(json!({"op": "cluster"}));
        assert_eq!(place(&cluster["leader"]), expected);
        assert_eq!(place(&cluster["members"][0]), expected);
    }
}

#[test]
fn a_replica_names_its_leader_as_its_own_flags_do_and_as_the_leader_wants() {
    for advertise in [None, Some("db-1.example:7001")] {
        let [first, second] = [(); 2].map(|()| temporary_directory());
        let ports = free_ports::<2>();
        let flags: Vec<&str> = advertise.iter().flat_map(|place| ["--advertise", place]).collect();
        let secondary = member(second.path(), 2, ports[1], ("127.0.0.1", ports[0]), &[]);
        let mut secondary = everywhere(secondary).start();
        let founder = everywhere(member(first.path(), 1, ports[0], ("127.0.0.1", ports[1]), &flags)).start();
        secondary.wait_for_log("adopted: this node is a member");
        let expected = match advertise {
            None => (json!("127.0.0.1"), json!(ports[0])),
            Some(_) => (json!("db-1.example"), json!(7001)),
        };
        let error = until_a_leader_is_named(&secondary);
        assert_eq!(place(&error["leader"]), expected, "{error}");
        for node in [&founder, &secondary] {
            let hello = at("127.0.0.1", node).ok(json!({"op": "hello"}));
            assert_eq!(place(&hello["leader"]), expected, "{hello}");
            let cluster = at("127.0.0.1", node).ok(json!({"op": "cluster"}));
            assert_eq!(place(&cluster["members"][0]), expected, "{cluster}");
        }
    }
}

/// What clients are told is no address for the nodes themselves: they look for each other where `--peers` says, and
/// where a node listens.
#[test]
fn nodes_that_advertise_an_address_of_another_network_find_each_other() {
    for mode in ["leader", "dynamo"] {
        let directories = [(); 3].map(|()| temporary_directory());
        let addresses = own_addresses::<3>();
        let host_of = |id: usize| addresses[id - 1].ip().to_string();
        let port_of = |id: usize| addresses[id - 1].port();
        let start = |id: usize, peers: &[usize], role: &[&str]| {
            let peer =
                |peer: &usize| json!({"node_id": peer, "host": host_of(*peer), "port": port_of(*peer)});
            let peers = Value::Array(peers.iter().map(peer).collect()).to_string();
            let (number, port, place) =
                (id.to_string(), port_of(id).to_string(), format!("node-{id}.example:{}", 7_000 + id));
            let flags = [
                "--node-id",
                &number,
                "--port",
                &port,
                "--mode",
                mode,
                "--peers",
                &peers,
                "--advertise",
                &place,
            ];
            Options::in_directory(directories[id - 1].path())
                .with(&["--host", &host_of(id)])
                .with(&flags)
                .with(role)
                .start()
        };
        let is_led = mode == "leader";
        let secondary: &[&str] = if is_led { &["--role", "secondary"] } else { &[] };
        let second = start(2, &[1], secondary);
        let first = start(1, &[2], &[]);
        let set = |key: &str| json!({"op": "set", "key": key, "value": key});
        let until_ok =
            |node: &Node, request: Value| while node.client().call(request.clone())["ok"] != true {};
        until_ok(&first, set("a"));
        // It names one member, and hears of the others from that.
        let third = start(3, &[2], secondary);
        if is_led {
            until_ok(
                &first,
                json!({"op": "add_member", "node_id": 3, "host": host_of(3), "port": port_of(3)}),
            );
        }
        for node in [&first, &second, &third] {
            let states = || {
                let cluster = node.client().ok(json!({"op": "cluster"}));
                let members = cluster["members"].as_array().cloned().unwrap_or_default();
                let is_there = |member: &Value| {
                    !["unreachable", "not_adopted"].map(Value::from).contains(&member["state"])
                };
                (members.len() == 3 && members.iter().all(is_there)).then_some(members)
            };
            let members = loop {
                if let Some(members) = states() {
                    break members;
                }
            };
            for (member, id) in members.iter().zip(1..) {
                assert_eq!(
                    place(member),
                    (json!(format!("node-{id}.example")), json!(7_000 + id)),
                    "{mode}: {member}"
                );
            }
        }
        until_ok(&first, set("b"));
        until_ok(&third, json!({"op": "get", "key": "b", "consistency": "local"}));
    }
}
