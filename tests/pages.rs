//! The promise: following `next` until it is null gives everything that there
//! is exactly once, in order, whatever the size of the pages and however many
//! shards they come from.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use common::{Client, Options, temporary_directory};
use serde_json::{Value, json};

const KEYS: usize = 137;

/// A node with keys that a newcomer's client would send, some of them awkward.
fn with_keys(work: impl Fn(&mut Client, &[String])) {
    let mut keys: Vec<String> = (0..KEYS).map(|number| format!("item:{number}")).collect();
    keys.extend(["item:", "item:\u{0}", "item:\"\\", "item:é", "item:😀", "other"].map(String::from));
    keys.sort_unstable();
    for shards in ["1", "4"] {
        let directory = temporary_directory();
        let node = Options::in_directory(directory.path()).with(&["--shards", shards]).start();
        let mut client = node.client();
        client.when_ready(json!({ "op": "scan" }));
        // The more often a word occurs the better: 1 to 5 times.
        let text = |number: usize| ["word"; 5][..1 + number % 5].join(" ");
        let records: Vec<Value> =
            keys.iter().enumerate().map(|(number, key)| json!([key, text(number)])).collect();
        client.ok(json!({ "op": "bulk_set", "records": records }));
        work(&mut client, &keys);
    }
}

/// Follows `next` to the end; every page but the last must be full.
fn pages(client: &mut Client, request: &Value, list: &str, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut request = request.clone();
    request["limit"] = json!(limit);
    loop {
        let page = client.ok(request.clone());
        let items = page[list].as_array().expect("a list");
        all.extend(items.iter().cloned());
        if page["next"].is_null() {
            return all;
        }
        assert_eq!(items.len(), limit, "{request}");
        assert!(all.len() < 2 * KEYS, "no end: {request}");
        request["after"] = page["next"].clone();
    }
}

fn scanned(client: &mut Client, request: Value, limit: usize) -> Vec<String> {
    let items = pages(client, &request, "items", limit);
    items.iter().map(|item| item["key"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_scan_gives_each_key_once_in_order_either_way() {
    with_keys(|client, keys| {
        for limit in [1, 7, 100, KEYS + 6, 10_000] {
            assert_eq!(scanned(client, json!({ "op": "scan" }), limit), keys, "{limit} a page");
            let mut backwards = scanned(client, json!({ "op": "scan", "reverse": true }), limit);
            backwards.reverse();
            assert_eq!(backwards, keys, "{limit} a page, backwards");
        }
    });
}

#[test]
fn a_scan_gives_the_keys_between_its_bounds() {
    with_keys(|client, keys| {
        let ranges = [
            (json!({ "prefix": "item:1" }), ("item:1", "item:2")),
            (json!({ "start": "item:2" }), ("item:2", "\u{10ffff}")),
            (json!({ "end": "item:2" }), ("", "item:2")),
            (json!({ "start": "item:13", "end": "item:5" }), ("item:13", "item:5")),
            (json!({ "prefix": "item:", "start": "item:77", "end": "z" }), ("item:77", "item;")),
            (json!({ "start": "z", "end": "a" }), ("z", "a")),
        ];
        for (bounds, (start, end)) in ranges {
            let within = |key: &&String| key.as_str() >= start && key.as_str() < end;
            let mut expected: Vec<String> = keys.iter().filter(within).cloned().collect();
            for reverse in [false, true] {
                let mut request = json!({ "op": "scan", "reverse": reverse, "values": false });
                request.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
                assert_eq!(scanned(client, request.clone(), 10), expected, "{request}");
                expected.reverse();
            }
        }
        let count = client.ok(json!({ "op": "count", "prefix": "item:1" }))["count"].clone();
        assert_eq!(count, keys.iter().filter(|key| key.starts_with("item:1")).count());
        assert_eq!(client.ok(json!({ "op": "count" }))["count"], keys.len());
    });
}

#[test]
fn a_page_goes_on_where_it_ended_though_that_key_is_gone() {
    with_keys(|client, keys| {
        let first = client.ok(json!({ "op": "scan", "limit": 10 }));
        client.ok(json!({ "op": "delete", "key": first["items"][9]["key"] }));
        let rest = client.ok(json!({ "op": "scan", "limit": 10_000, "after": first["next"] }));
        let rest: Vec<&str> =
            rest["items"].as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap()).collect();
        assert_eq!(rest, keys[10..]);
    });
}

#[test]
fn searches_give_each_hit_once_in_order() {
    with_keys(|client, keys| {
        let request = json!({ "op": "search_by_value", "value": "word word" });
        let expected: Vec<&String> = keys.iter().skip(1).step_by(5).collect();
        let total = client.ok(request.clone())["total"].clone();
        assert_eq!(total, expected.len());
        for limit in [1, 4, 1_000] {
            assert_eq!(json!(pages(client, &request, "keys", limit)), json!(expected), "{limit} a page");
        }
        // Equal scores many times over: the keys decide between them.
        let request = json!({ "op": "search_text", "query": "word" });
        let whole = client.ok(request.clone());
        assert_eq!((&whole["total"], &whole["next"]), (&json!(keys.len()), &Value::Null));
        let hit = |at: usize| (whole["scores"][at].as_f64().unwrap(), whole["keys"][at].as_str().unwrap());
        for at in 1..keys.len() {
            let ((score, key), (next_score, next_key)) = (hit(at - 1), hit(at));
            assert!(score > next_score || (score == next_score && key < next_key), "at {at}: {whole}");
        }
        for limit in [1, 4, 50] {
            let found = pages(client, &request, "keys", limit);
            assert_eq!(json!(found), whole["keys"], "{limit} a page");
        }
    });
}

/// Every write changes how common words are, and with that the scores of what stays as it is.
#[test]
fn a_search_by_words_goes_on_in_its_order_whatever_is_written() {
    with_keys(|client, keys| {
        let request = json!({ "op": "search_text", "query": "word", "limit": 7 });
        let whole = client.ok(json!({ "op": "search_text", "query": "word" }))["keys"].clone();
        let mut page = client.ok(request.clone());
        let mut found = page["keys"].as_array().unwrap().clone();
        while !page["next"].is_null() {
            let key = format!("new:{}", found.len());
            client.ok(json!({ "op": "set", "key": key, "value": "something else of many words" }));
            let mut next = request.clone();
            next["after"] = page["next"].clone();
            page = client.ok(next);
            assert_eq!(page["total"], keys.len());
            found.extend(page["keys"].as_array().unwrap().iter().cloned());
        }
        assert_eq!(json!(found), whole);
        // Whoever deletes page by page deletes all.
        let mut page = client.ok(request.clone());
        let mut deleted = 0;
        loop {
            client.ok(json!({ "op": "bulk_delete", "keys": page["keys"] }));
            deleted += page["keys"].as_array().unwrap().len();
            if page["next"].is_null() {
                break;
            }
            let mut next = request.clone();
            next["after"] = page["next"].clone();
            page = client.ok(next);
        }
        assert_eq!(deleted, keys.len());
        assert_eq!(client.ok(request.clone())["total"], 0);
    });
}

#[test]
fn a_search_by_words_goes_on_behind_a_kill() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).with(&["--shards", "2"]).start();
    let mut client = node.client();
    let records: Vec<Value> =
        (0..50).map(|number| json!([format!("k{number:02}"), "word ".repeat(1 + number % 9)])).collect();
    client.ok(json!({ "op": "bulk_set", "records": records }));
    let request = json!({ "op": "search_text", "query": "word" });
    let whole = client.when_ready(request.clone());
    let mut half = request.clone();
    half["limit"] = json!(25);
    let first = client.ok(half);
    client.ok(json!({ "op": "set", "key": "other", "value": "another word that changes what is common" }));
    let node = node.kill().start();
    let mut rest = request;
    rest["after"] = first["next"].clone();
    let rest = node.client().when_ready(rest);
    let found: Vec<&Value> =
        [&first, &rest].into_iter().flat_map(|page| page["keys"].as_array().unwrap()).collect();
    assert_eq!(json!(found.iter().filter(|key| ***key != "other").collect::<Vec<_>>()), whole["keys"]);
}

#[test]
fn searches_keep_to_a_prefix() {
    with_keys(|client, keys| {
        let under: Vec<&String> = keys.iter().filter(|key| key.starts_with("item:1")).collect();
        let request = json!({ "op": "search_text", "query": "word", "prefix": "item:1" });
        let whole = client.ok(request.clone());
        let mut found: Vec<&str> =
            whole["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        found.sort_unstable();
        assert_eq!((json!(found), &whole["total"]), (json!(under), &json!(under.len())));
        for limit in [1, 10] {
            assert_eq!(json!(pages(client, &request, "keys", limit)), whole["keys"], "{limit} a page");
        }
        let value = json!({ "op": "search_by_value", "value": "word word", "prefix": "item:1" });
        let number = |key: &str| keys.iter().position(|other| other == key).unwrap();
        let expected: Vec<&&String> = under.iter().filter(|key| number(key) % 5 == 1).collect();
        assert_eq!(client.ok(value.clone())["total"], expected.len());
        for limit in [1, 4, 1_000] {
            assert_eq!(json!(pages(client, &value, "keys", limit)), json!(expected), "{limit} a page");
        }
        // Nobody's words.
        let nothing = client.ok(json!({ "op": "search_text", "query": "word", "prefix": "nobody" }));
        assert_eq!((&nothing["total"], &nothing["total_any"]), (&json!(0), &json!(0)));
        let any = client.ok(json!({ "op": "search_text", "query": "word nothing", "prefix": "item:1" }));
        assert_eq!((&any["total"], &any["total_any"]), (&json!(0), &json!(under.len())));
    });
}

#[test]
fn a_page_ends_at_its_bytes_and_the_next_goes_on() {
    let directory = temporary_directory();
    let node = Options::in_directory(directory.path()).start();
    let mut client = node.client();
    client.when_ready(json!({ "op": "scan" }));
    let value = "x".repeat(900_000);
    for number in 0..12 {
        client.ok(json!({ "op": "set", "key": format!("large-{number:02}"), "value": value }));
    }
    let (mut seen, mut pages, mut after) = (0, 0, None);
    loop {
        let mut request = json!({ "op": "scan" });
        if let Some(after) = after {
            request["after"] = after;
        }
        client.send(&request);
        let line = client.receive_line();
        assert!(line.len() < 5 << 20, "a page of {} bytes", line.len());
        let page: Value = serde_json::from_str(&line).unwrap();
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["key"], format!("large-{seen:02}"));
            seen += 1;
        }
        pages += 1;
        if page["next"].is_null() {
            break;
        }
        after = Some(page["next"].clone());
    }
    assert!(seen == 12 && pages >= 3, "{seen} keys on {pages} pages");
}

#[test]
fn a_cursor_of_something_else_is_refused() {
    with_keys(|client, _| {
        let of_text = client.ok(json!({ "op": "search_text", "query": "word", "limit": 1 }))["next"].clone();
        for request in [
            json!({ "op": "scan", "after": "nonsense" }),
            json!({ "op": "search_by_value", "value": 1, "after": "" }),
            json!({ "op": "search_text", "query": "word", "after": "kitem:1" }),
            json!({ "op": "search_text", "query": "words", "after": of_text }),
            json!({ "op": "search_text", "query": "word", "match": "any", "after": of_text }),
            json!({ "op": "search_text", "query": "word", "prefix": "item", "after": of_text }),
            json!({ "op": "scan", "after": of_text }),
        ] {
            assert_eq!(client.refused(request)["code"], "bad_request");
        }
    });
}
