//! The wire: lines in, requests out, replies back.

mod request;

pub use request::{Consistency, Decoded, Match, Operation, Request, ScanRequest, Span};
