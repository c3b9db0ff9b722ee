//! The wire: lines in, requests out, replies back.
//!
//! ```text
//! bytes → line_decoder ─ lines → decode ─ envelope → fields → keys, bulks, searches, admin → Request
//!                                            json ↑ scans every value                           │
//! bytes ← reply ←──────────────────────────── what became of it ←────────────────────────────────┘
//! ```
//!
//! - [`json`]: the scanner that finds where values end and refuses what isn't JSON.
//! - `line_decoder`: all complete lines of a read, long lines, the end of input.
//! - `other_protocols`: a first line that is HTTP's or TLS's ends the connection.
//! - `decode` and `envelope`: a line's outer object, its `op` and its `id`.
//! - `fields`: the checks that operations share; `keys`, `bulks`, `searches`,
//!   `admin`: a file a family, each operation with the fields it knows.
//! - `asks`: what a request of any family may ask for beyond its operation, in dynamo mode.
//! - [`reply`]: one function a kind of reply.
//! - [`peer_hello`] and [`peer_frame`]: nodes that greet each other on the clients'
//!   port, and what they say to each other from then on; in dynamo mode [`peer_greeting`]
//!   and [`peer_frame_converging`]; to an earlier version, what [`peer_version`] leaves of it.

mod admin;
mod asks;
mod bulks;
mod decode;
mod envelope;
mod fields;
mod frame_reader;
pub mod json;
mod json_open;
mod keys;
mod line_decoder;
mod other_protocols;
pub mod peer_frame;
pub mod peer_frame_converging;
mod peer_frame_health;
pub mod peer_greeting;
pub mod peer_hello;
pub mod peer_version;
pub mod reply;
mod request;
mod searches;
#[cfg(test)]
mod tests;

pub use line_decoder::LineDecoder;
pub use other_protocols::OtherProtocol;
pub use request::{
    Asks, Consistency, Copies, Decoded, Match, Operation, PageRequest, Request, ScanRequest, Span,
};
