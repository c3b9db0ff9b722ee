//! The lines with which two nodes of dynamo mode greet each other. What they mean is
//! [`crate::replication::dynamo::Greeting`]'s.
//!
//! ```text
//! → {"op":"peer","mode":"dynamo","protocol":[1,1],"lane":"log","from":{…},"boot":7,"to":2,"is_new":false}
//! ← {"ok":true,"mode":"dynamo",…}         the same fields, of who answers
//! ← {"ok":false,"error":{…}}
//! ```

use serde::{Deserialize, Serialize};

use super::peer_hello::line;
use super::reply;
use crate::error::Error;
use crate::replication::dynamo::Greeting;

#[derive(Serialize)]
struct GreetingLine<'a> {
    op: &'static str,
    #[serde(flatten)]
    greeting: &'a Greeting,
}

#[derive(Serialize)]
struct WelcomeLine<'a> {
    ok: bool,
    #[serde(flatten)]
    greeting: &'a Greeting,
}

/// What a greeting was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GreetingAnswer {
    /// Who answers.
    Welcome(Greeting),
    /// Go away.
    Refused {
        /// The error's code.
        code: String,
        /// Why, for a person.
        message: String,
        /// The same greeting may be accepted later.
        retryable: bool,
        /// It never will be: the directory was evicted.
        evicted: bool,
    },
}

/// A greeting as a line, with its newline.
pub fn greeting_line(greeting: &Greeting) -> Vec<u8> {
    line(&GreetingLine { op: "peer", greeting })
}

/// An answer as a line, with its newline.
pub fn greeting_welcome_line(greeting: &Greeting) -> Vec<u8> {
    line(&WelcomeLine { ok: true, greeting })
}

/// That the greeting node's directory was evicted, as a line with its newline.
pub fn evicted_line(error: &Error) -> Vec<u8> {
    let mut line = Vec::new();
    reply::error(&mut line, b"", error);
    // Before the brace and the newline that end the line.
    let end = line.len().saturating_sub(b"}\n".len());
    line.splice(end..end, b",\"evicted\":true".iter().copied());
    line
}

/// Reads a greeting; the error says what is wrong with it.
pub fn read_greeting(line: &[u8]) -> Result<Greeting, String> {
    if !is_dynamo(line) {
        let message = "this node runs with --mode dynamo, the other one with --mode leader: give all nodes of a \
                       cluster the same --mode";
        return Err(message.into());
    }
    serde_json::from_slice(line).map_err(|error| format!("`peer`: {error}"))
}

/// Whether a peer's first line is that of a node of dynamo mode.
pub fn is_dynamo(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Mode {
        mode: Option<String>,
    }
    serde_json::from_slice::<Mode>(line).is_ok_and(|line| line.mode.as_deref() == Some("dynamo"))
}

/// Reads what a greeting was answered with; the error says why it is no answer.
pub fn read_greeting_answer(line: &[u8]) -> Result<GreetingAnswer, String> {
    #[derive(Deserialize)]
    struct Refused {
        error: RefusedError,
        #[serde(default)]
        evicted: bool,
    }
    #[derive(Deserialize)]
    struct RefusedError {
        code: String,
        message: String,
        retryable: bool,
    }
    let wrong = |error: serde_json::Error| format!("not the answer of a peer of dynamo mode: {error}");
    if is_dynamo(line) {
        return serde_json::from_slice(line).map(GreetingAnswer::Welcome).map_err(wrong);
    }
    let Refused { error: RefusedError { code, message, retryable }, evicted } =
        serde_json::from_slice(line).map_err(wrong)?;
    Ok(GreetingAnswer::Refused { code, message, retryable, evicted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::messaging::peer_hello::{PEER_PREFIX, refused_line};
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::Place;
    use crate::replication::handshake::Lane;

    #[test]
    fn greetings_and_answers_come_back() {
        let from = Place { node_id: 1, directory: Some(NodeUuid([7; 16])), host: "h".into(), port: 9 };
        let mode = "dynamo".to_string();
        let greeting = Greeting {
            mode,
            protocol: (1, 1),
            lane: Lane::Log,
            from,
            boot: 3,
            to: 2,
            is_new: true,
            advertise: None,
        };
        let line = greeting_line(&greeting);
        assert!(line.starts_with(PEER_PREFIX) && line.ends_with(b"}\n"));
        assert_eq!(read_greeting(&line), Ok(greeting.clone()));
        let welcome = greeting_welcome_line(&greeting);
        assert_eq!(read_greeting_answer(&welcome), Ok(GreetingAnswer::Welcome(greeting)));
        let refused = refused_line(&Error::new(Code::Starting, "later"), None);
        let (code, message) = ("starting".to_string(), "later".to_string());
        let expected = GreetingAnswer::Refused { code, message, retryable: true, evicted: false };
        assert_eq!(read_greeting_answer(&refused), Ok(expected));
        let evicted = evicted_line(&Error::new(Code::ReadOnly, "gone"));
        assert!(matches!(read_greeting_answer(&evicted), Ok(GreetingAnswer::Refused { evicted: true, .. })));
        assert!(read_greeting(br#"{"op":"peer","lane":"log"}"#).is_err_and(|error| error.contains("--mode")));
        assert!(read_greeting_answer(b"HTTP/1.1 400\n").is_err());
    }
}
