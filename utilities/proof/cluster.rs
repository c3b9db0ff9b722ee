//! What the nodes of a cluster owe each other when nothing is written any more: one
//! leader, and the same contents everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::fault::Fault;
use super::names::Names;
use crate::linearizability::Place;

/// A bound on what a node can say from memory. One that is stopped says nothing.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
/// A bound on each reply of a node that is read.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);
/// Keys of one `bulk_get`.
const CHUNK: usize = 100;
/// Differences that are told of each node.
const DIFFERENCES_MAX: usize = 20;

/// Everything of a run at one node: each key's value, vector and version.
type Contents = BTreeMap<String, Value>;

/// What a node says of its cluster.
fn view(place: &Place) -> Option<Value> {
    let mut client = Client::connect_within(place.address, VIEW_TIMEOUT).ok()?;
    client.ok(&json!({"op": "cluster"})).ok()
}

/// The node that says that it leads, in the latest term of those, and what it says.
fn leading(places: &[Place]) -> Option<(Place, Value)> {
    let views = places.iter().filter_map(|place| Some((*place, view(place)?)));
    let leading = views.filter(|(place, view)| view["leader"]["node_id"] == place.node_id);
    leading.max_by_key(|(_, view)| view["term"].as_u64())
}

/// The node that says that it leads, in the latest term of those.
pub fn leader(places: &[Place]) -> Option<Place> {
    leading(places).map(|(place, _)| place)
}

/// Whether there is a leader that has all of these as members which lack nothing.
pub fn is_whole(places: &[Place]) -> bool {
    let Some((_, view)) = leading(places) else { return false };
    let members = view["members"].as_array().map_or(&[][..], Vec::as_slice);
    places.iter().all(|place| {
        members.iter().any(|member| member["node_id"] == place.node_id && member["state"] == "serving")
    })
}

/// Waits until all nodes show the same under the run's names and nothing is under way, and gives
/// what is wrong: differences that stay for as long as `patience`, and those that the nodes have
/// noticed themselves. Nobody may be writing.
///
/// # Errors
///
/// In words, when there is no leader, or not all nodes answer, for so long.
pub fn converge(
    places: &[Place],
    names: &Names,
    keys: &BTreeSet<String>,
    patience: Duration,
) -> Result<Vec<Fault>, String> {
    let deadline = Instant::now() + patience;
    // The same twice, and a write in between: what was under way before it is settled then, as
    // it comes before it in the log of every leader to come, or in none.
    let mut before = None;
    let mut faults = loop {
        let met = common(places, names, keys);
        let told = match met {
            Ok(Ok(contents)) if before.as_ref() == Some(&contents) => break Vec::new(),
            Ok(Ok(contents)) => {
                let marked = mark(places, names);
                before = marked.is_ok().then_some(contents);
                marked.map_err(|told| (told, Vec::new()))
            }
            Ok(Err(faults)) => Err(("the nodes differ".to_string(), faults)),
            Err(told) => Err((told, Vec::new())),
        };
        if let (Err((told, faults)), true) = (told, Instant::now() > deadline) {
            if faults.is_empty() {
                return Err(format!(
                    "the nodes did not converge within {} s: {told}",
                    patience.as_secs_f64()
                ));
            }
            break faults;
        }
        sleep(POLL);
    };
    for place in places {
        let view =
            view(place).ok_or_else(|| format!("node {} says nothing of its cluster", place.node_id))?;
        if view["state_differences"] != 0 {
            let name = format!("node {}", place.node_id);
            faults.push(Fault::divergence(&name, "state_differences 0", &view["state_differences"]));
        }
    }
    Ok(faults)
}

/// A write to whoever leads.
fn mark(places: &[Place], names: &Names) -> Result<(), String> {
    let place = leader(places).ok_or("nobody leads")?;
    let mut client = connected(&place)?;
    client.ok(&json!({"op": "set", "key": names.marker(), "value": "settled"})).map(|_| ())
}

/// What all nodes show, or how they differ from the first one.
fn common(
    places: &[Place],
    names: &Names,
    keys: &BTreeSet<String>,
) -> Result<Result<Contents, Vec<Fault>>, String> {
    let mut faults = Vec::new();
    let mut first: Option<(u64, Contents)> = None;
    for place in places {
        let id = place.node_id;
        let contents = contents(place, names, keys).map_err(|told| format!("node {id}: {told}"))?;
        match &first {
            None => first = Some((id, contents)),
            Some((first_id, first)) => {
                let both: BTreeSet<&String> = first.keys().chain(contents.keys()).collect();
                let different = both.into_iter().filter(|key| first.get(*key) != contents.get(*key));
                faults.extend(different.take(DIFFERENCES_MAX).map(|key| {
                    let shown = |id, contents: &Contents| {
                        format!("{} at node {id}", contents.get(key).unwrap_or(&Value::Null))
                    };
                    Fault::divergence(key, shown(*first_id, first), shown(id, &contents))
                }));
            }
        }
    }
    Ok(if faults.is_empty() {
        Ok(first.map(|(_, contents)| contents).unwrap_or_default())
    } else {
        Err(faults)
    })
}

/// What a node shows without asking any other.
fn contents(place: &Place, names: &Names, keys: &BTreeSet<String>) -> Result<Contents, String> {
    let mut client = connected(place)?;
    let features = client.ok(&json!({"op": "hello"}))?["features"].clone();
    if features.as_array().is_some_and(|all| all.contains(&json!("scan"))) {
        scanned(&mut client, names)
    } else {
        looked_up(&mut client, keys)
    }
}

fn scanned(client: &mut Client, names: &Names) -> Result<Contents, String> {
    let mut contents = Contents::new();
    let mut request =
        json!({"op": "scan", "vectors": true, "prefix": names.prefix(), "consistency": "local"});
    loop {
        let page = client.ok(&request)?;
        for item in page["items"].as_array().into_iter().flatten() {
            contents.insert(item["key"].as_str().unwrap_or_default().to_string(), item.clone());
        }
        if page["next"].is_null() {
            return Ok(contents);
        }
        request["after"] = page["next"].clone();
    }
}

/// As far as a node without an order index shows it: values and versions.
fn looked_up(client: &mut Client, keys: &BTreeSet<String>) -> Result<Contents, String> {
    let mut contents = Contents::new();
    for chunk in keys.iter().collect::<Vec<_>>().chunks(CHUNK) {
        let reply = client.ok(&json!({"op": "bulk_get", "keys": chunk, "consistency": "local"}))?;
        for (key, item) in chunk.iter().zip(reply["values"].as_array().into_iter().flatten()) {
            contents.insert(key.to_string(), item.clone());
        }
    }
    Ok(contents)
}

fn connected(place: &Place) -> Result<Client, String> {
    let refused = |error: io::Error| format!("no connection to {}: {error}", place.address);
    Client::connect_within(place.address, REPLY_TIMEOUT).map_err(refused)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::proof::FaultKind;

    const LEADER: u64 = 1;

    /// A node that says what it is told to.
    fn node(node_id: u64, version: &'static str, differences: u64) -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let answer = move |request: Value| match request["op"].as_str() {
            Some("hello") => json!({"ok": true, "features": ["scan"]}),
            Some("cluster") => {
                let leader = json!({"node_id": LEADER});
                json!({"ok": true, "term": 1, "leader": leader, "state_differences": differences})
            }
            Some("scan") => {
                let item = json!({"key": "run-a", "value": 1, "version": version});
                json!({"ok": true, "items": [item], "next": null})
            }
            _ => json!({"ok": true, "version": "9.0"}),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut replies = stream.try_clone().expect("a handle");
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let reply = answer(serde_json::from_str(&line).expect("JSON"));
                    writeln!(replies, "{reply}").expect("it is read");
                }
            }
        });
        Place { node_id, address }
    }

    fn told(places: &[Place]) -> Result<Vec<(FaultKind, String)>, String> {
        let names = Names::new("run");
        let faults = converge(places, &names, &BTreeSet::new(), Duration::from_millis(300))?;
        Ok(faults.into_iter().map(|fault| (fault.kind, fault.key)).collect())
    }

    #[test]
    fn nodes_that_show_the_same_have_converged() {
        assert_eq!(told(&[node(LEADER, "1.0", 0), node(2, "1.0", 0)]), Ok(vec![]));
    }

    #[test]
    fn another_version_at_one_node_is_a_divergence() {
        let divergence = (FaultKind::Divergence, "run-a".to_string());
        assert_eq!(told(&[node(LEADER, "1.0", 0), node(2, "1.1", 0)]), Ok(vec![divergence]));
    }

    #[test]
    fn a_difference_that_a_node_has_noticed_is_a_divergence() {
        let divergence = (FaultKind::Divergence, "node 2".to_string());
        assert_eq!(told(&[node(LEADER, "1.0", 0), node(2, "1.0", 3)]), Ok(vec![divergence]));
    }

    #[test]
    fn a_cluster_without_a_leader_is_not_taken_for_one_that_differs() {
        let nobody = told(&[node(2, "1.0", 0), node(3, "1.0", 0)]);
        assert!(nobody.is_err_and(|told| told.contains("nobody leads")));
    }
}
