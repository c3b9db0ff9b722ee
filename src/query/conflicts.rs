//! The body of `conflicts`.

use std::fmt::Write;

use crate::engine::{Conflict, Side, Written};
use crate::limits::PAGE_BYTES_MAX;

/// Lost races, newest first: number, what was lost to what, and when that was seen, in
/// milliseconds since 1970. At most `limit` of them; with one more than that, there is a
/// page behind this one.
pub fn conflicts_body<'a>(rows: impl Iterator<Item = (u64, &'a Conflict, u64)>, limit: usize) -> String {
    let mut body = String::from("{\"conflicts\":[");
    let (mut shown, mut last, mut more) = (0, 0, false);
    for (number, conflict, seen_at_ms) in rows {
        if shown == limit || body.len() > PAGE_BYTES_MAX {
            more = true;
            break;
        }
        if shown > 0 {
            body.push(',');
        }
        row(&mut body, conflict, seen_at_ms);
        (shown, last) = (shown + 1, number);
    }
    // Writing into memory can't fail.
    let _ = match more {
        true => write!(body, "],\"next\":\"{last}\"}}"),
        false => write!(body, "],\"next\":null}}"),
    };
    body
}

fn row(body: &mut String, conflict: &Conflict, seen_at_ms: u64) {
    let key = String::from_utf8_lossy(&conflict.key);
    let _ = write!(body, "{{\"key\":{},\"winner\":", serde_json::Value::from(key));
    side(body, &conflict.winner);
    body.push_str(",\"loser\":");
    side(body, &conflict.loser);
    let _ = write!(body, ",\"seen_at\":{seen_at_ms}}}");
}

fn side(body: &mut String, side: &Side) {
    let _ = write!(body, "{{\"version\":\"{}\",", side.version);
    match &side.written {
        Written::Deleted => body.push_str("\"deleted\":true"),
        // As it came: it is JSON.
        Written::Value(value) => {
            let _ = write!(body, "\"value\":{}", String::from_utf8_lossy(value));
        }
        Written::Vector(vector) => {
            let _ = write!(body, "\"vector\":{}", serde_json::json!(vector));
        }
    }
    body.push('}');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::version::Version;

    #[test]
    fn both_sides_are_shown_and_a_page_says_where_to_go_on() {
        let of = |index, written| Side { version: Version { index, ordinal: 7 }, written };
        let conflict = Conflict {
            key: Bytes::from_static(b"a\"b"),
            winner: of(9, Written::Value(Bytes::from_static(b"{\"x\": 1.0}"))),
            loser: of(8, Written::Deleted),
        };
        let vectors = Conflict { loser: of(8, Written::Vector(vec![1.5])), ..conflict.clone() };
        let rows = [(5, &conflict, 77), (4, &vectors, 76)];
        let whole = conflicts_body(rows.into_iter(), 2);
        assert_eq!(
            whole,
            "{\"conflicts\":[{\"key\":\"a\\\"b\",\"winner\":{\"version\":\"9.7\",\"value\":{\"x\": 1.0}},\
             \"loser\":{\"version\":\"8.7\",\"deleted\":true},\"seen_at\":77},\
             {\"key\":\"a\\\"b\",\"winner\":{\"version\":\"9.7\",\"value\":{\"x\": 1.0}},\
             \"loser\":{\"version\":\"8.7\",\"vector\":[1.5]},\"seen_at\":76}],\"next\":null}"
        );
        assert!(conflicts_body(rows.into_iter(), 1).ends_with("],\"next\":\"5\"}"));
    }
}
