//! The load generator of `perf_write_test`, `bench_against` and `bench_cluster`.
//!
//! ```text
//!             Data  keys and values, the same bytes for any server
//!              │
//!  Plan ─► run │ one thread, one epoll
//!              ▼
//!        Connection × c ── batch of P requests ──► server
//!              ▲                                     │
//!              └─────────── P replies, judged ◄──────┘
//!              │
//!           Outcome  figures, or why there are none
//! ```
//!
//! **Pattern.** Each connection sends a batch of P requests in one write, waits
//! for all P replies, and sends the next batch: the pattern of
//! `redis-benchmark -P`. A request's latency is the time from its batch being
//! sent to its reply being read.
//!
//! **Judged.** Every reply is held against its request. A read must give a value
//! that was written for its key; errors are counted by code; a reply that makes
//! no sense is a fault. [`Outcome::failure`] says why a run is no figure.
//!
//! **Cheap.** The generator shares the machine with the server that it measures,
//! so it costs as little as it can: raw sockets and one epoll rather than a
//! runtime, two readings of the clock per batch, requests that are copied
//! together, replies that are compared with the bytes expected before they are
//! parsed. [`Outcome::generator_cpu`] tells what it did cost: where that comes near
//! the elapsed time, the generator is the limit and not the server.

mod connection;
mod data;
mod grpc;
mod interrupt;
mod json_lines;
mod outcome;
mod protocol;
mod resp;
mod run;

pub use data::{Data, KEYS_MAX, Values};
pub use grpc::EtcdPuts;
pub use interrupt::Interrupt;
pub use json_lines::JsonLines;
pub use outcome::Outcome;
pub use protocol::{Answer, Asked, Protocol, Refusal, Verdict, judge};
pub use resp::Resp;
pub use run::{Order, Plan, Until, run};
