//! The lines with which two nodes greet each other, on the port of the clients.
//!
//! ```text
//! → {"op":"peer","protocol":[1,1],"lane":"log","cluster":"…","epoch":0,"node_id":1,"node":"…","boot":7,"to":2}
//! ← {"ok":true,"protocol":1,"cluster":"…","node_id":2,"node":"…","boot":9}
//! ← {"ok":false,"error":{"code":"bad_request","message":"…","retryable":false,"outcome":"not_applied"},"cluster":"…"}
//! ```
//!
//! What they mean is [`crate::replication::handshake`]'s. A connection is a
//! peer's if its first bytes are [`PEER_PREFIX`]; a client's requests never
//! begin so, since no operation has that name. Fields that aren't known are
//! passed over: a later version may add some.

use serde::{Deserialize, Serialize};

use super::reply;
use crate::error::{Code, Error};
use crate::replication::handshake::{Hello, Refusal, Welcome};

/// What a peer's first line begins with.
pub const PEER_PREFIX: &[u8] = br#"{"op":"peer","#;

#[derive(Serialize)]
struct HelloLine<'a> {
    op: &'static str,
    #[serde(flatten)]
    hello: &'a Hello,
}

#[derive(Serialize)]
struct WelcomeLine<'a> {
    ok: bool,
    #[serde(flatten)]
    welcome: &'a Welcome,
}

/// What a greeting was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Welcome.
    Welcome(Welcome),
    /// Go away.
    Refused {
        /// Why, for a person.
        message: String,
        /// The same greeting may be accepted later.
        retryable: bool,
        /// The cluster of who refuses, if it has one.
        cluster: Option<String>,
    },
}

#[derive(Deserialize)]
struct RefusedLine {
    error: RefusedError,
    #[serde(default)]
    cluster: Option<String>,
}

#[derive(Deserialize)]
struct RefusedError {
    message: String,
    retryable: bool,
}

/// A greeting as a line, with its newline.
pub fn hello_line(hello: &Hello) -> Vec<u8> {
    line(&HelloLine { op: "peer", hello })
}

/// Reads a greeting; the error says what is wrong with it.
pub fn read_hello(line: &[u8]) -> Result<Hello, String> {
    serde_json::from_slice(line).map_err(|error| format!("`peer`: {error}"))
}

/// A welcome as a line, with its newline.
pub fn welcome_line(welcome: &Welcome) -> Vec<u8> {
    line(&WelcomeLine { ok: true, welcome })
}

/// A refusal as a line, with its newline. `cluster` is the refusing node's.
pub fn refused_line(error: &Error, cluster: Option<&str>) -> Vec<u8> {
    let mut line = Vec::new();
    reply::error(&mut line, b"", error);
    if let Some(cluster) = cluster {
        // Before the brace and the newline that end the line.
        let fields = format!(",\"cluster\":\"{cluster}\"");
        let end = line.len().saturating_sub(b"}\n".len());
        line.splice(end..end, fields.into_bytes());
    }
    line
}

/// What a refused node is told.
pub fn refusal_error(refusal: &Refusal) -> Error {
    let code = match refusal {
        Refusal::Protocol { .. } => Code::UnsupportedProtocol,
        Refusal::NotAdopted { .. } | Refusal::LeftBehind { .. } | Refusal::Lags { .. } => Code::Starting,
        _ => Code::BadRequest,
    };
    Error::new(code, refusal.to_string())
}

/// Reads what a greeting was answered with; the error says why it is no answer.
pub fn read_answer(line: &[u8]) -> Result<Answer, String> {
    #[derive(Deserialize)]
    struct Outcome {
        ok: bool,
    }
    let wrong = |error: serde_json::Error| format!("not the answer of a peer: {error}");
    if serde_json::from_slice::<Outcome>(line).map_err(wrong)?.ok {
        return serde_json::from_slice(line).map(Answer::Welcome).map_err(wrong);
    }
    let RefusedLine { error, cluster } = serde_json::from_slice(line).map_err(wrong)?;
    Ok(Answer::Refused { message: error.message, retryable: error.retryable, cluster })
}

pub(super) fn line<T: Serialize>(value: &T) -> Vec<u8> {
    // Writing plain fields into memory can't fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::{Member, Membership, NodeUuid};
    use crate::replication::handshake::{Lane, PROTOCOL};

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL,
            lane: Lane::Heartbeat,
            cluster: Some("0123".repeat(8)),
            epoch: 0,
            epochs: vec![],
            configuration: 0,
            node_id: 1,
            node: NodeUuid([1; 16]),
            boot: u64::MAX,
            to: 2,
            in_doubt: false,
            advertise: None,
            membership: None,
        }
    }

    #[test]
    fn greetings_come_back_and_begin_as_only_a_peer_does() {
        let member = Member { node_id: 1, host: "a".into(), port: 1, node: Some(NodeUuid([1; 16])) };
        let membership = Membership::new("0123".repeat(8), 1, vec![member]);
        for hello in [
            hello(),
            Hello { cluster: None, lane: Lane::Snapshot, ..hello() },
            Hello { membership: Some(membership), in_doubt: true, ..hello() },
        ] {
            let line = hello_line(&hello);
            assert!(line.starts_with(PEER_PREFIX) && line.ends_with(b"}\n"));
            assert_eq!(read_hello(&line), Ok(hello));
        }
        let line = String::from_utf8(hello_line(&hello())).unwrap();
        assert!(line.contains(r#""lane":"heartbeat""#) && !line.contains("membership"), "{line}");
        assert!(!line.contains("in_doubt"), "as the version before says it: {line}");
    }

    #[test]
    fn what_is_no_greeting_says_what_is_wrong() {
        let wrong = read_hello(br#"{"op":"peer","protocol":[1,1],"lane":"log"}"#).unwrap_err();
        assert!(wrong.contains("missing field"), "{wrong}");
        assert!(read_hello(br#"{"op":"peer","#).is_err());
        let added =
            String::from_utf8(hello_line(&hello())).unwrap().replace("\"epoch\"", "\"new\":1,\"epoch\"");
        assert_eq!(read_hello(added.as_bytes()), Ok(hello()));
    }

    #[test]
    fn answers_come_back() {
        let (protocol, cluster, node) = (1, None, NodeUuid([2; 16]));
        let epochs = vec!["f".into()];
        let (lags, in_doubt) = (false, false);
        let welcome =
            Welcome { protocol, cluster, epochs, lags, node_id: 2, node, boot: 3, in_doubt, advertise: None };
        for welcome in [Welcome { in_doubt: true, ..welcome.clone() }, welcome] {
            assert_eq!(read_answer(&welcome_line(&welcome)), Ok(Answer::Welcome(welcome)));
        }
        for (refusal, retryable) in [
            (Refusal::NotAdopted { node_id: 2 }, true),
            (Refusal::Protocol { theirs: (2, 3) }, false),
            (Refusal::SameNodeId { node_id: 2 }, false),
        ] {
            for cluster in [None, Some("0123")] {
                let line = refused_line(&refusal_error(&refusal), cluster);
                assert!(line.ends_with(b"}\n"));
                let cluster = cluster.map(String::from);
                let message = refusal.to_string();
                assert_eq!(read_answer(&line), Ok(Answer::Refused { message, retryable, cluster }));
            }
        }
    }

    #[test]
    fn another_server_is_no_peer() {
        for line in ["HTTP/1.1 400 Bad Request\n", "{}\n", r#"{"ok":true,"pong":true}"#, ""] {
            assert!(read_answer(line.as_bytes()).is_err(), "{line}");
        }
    }
}
