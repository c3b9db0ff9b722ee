//! Memory per key: how far a fresh server's resident memory grows with a fill.

use datastore_utilities::bench::Marked;
use datastore_utilities::bench::process::resident_bytes;
use datastore_utilities::load::{Data, Values};

use crate::marks;
use crate::report::MemoryRow;
use crate::server::{Bench, Kind, Server};
use crate::sides::fill;

/// A text of about 1 KB: words of six letters on average, and the spaces.
const TEXT_WORDS: usize = 146;
/// Texts take thirty times the room of small values, so there are fewer of them.
const TEXT_KEYS_DIVISOR: u64 = 10;

/// Fills servers with each kind of data and weighs them.
pub fn weigh(bench: &Bench, keys: u64, seed: u64) -> Result<Vec<MemoryRow>, String> {
    let letters = Values::Letters { value_bytes: 32 };
    let words = Values::Words { words: 5 };
    let text = Values::Words { words: TEXT_WORDS };
    let texts = (keys / TEXT_KEYS_DIVISOR).max(1);
    let weigh = |kind, values, keys, arguments: &[&str]| grown(bench, kind, values, keys, seed, arguments);
    let none = ["--indexes", "none"];
    let row = |data: &str, keys, node, redis, marked| MemoryRow {
        data: data.into(),
        keys,
        node_bytes_per_key: node,
        redis_bytes_per_key: redis,
        marked,
    };

    let redis_letters = weigh(Kind::Redis, letters, keys, &[])?;
    let redis_words = weigh(Kind::Redis, words, keys, &[])?;
    let redis_text = weigh(Kind::Redis, text, texts, &[])?;
    let plain = weigh(Kind::Node, letters, keys, &none)?;
    let indexed = weigh(Kind::Node, letters, keys, &[])?;
    let indexed_words = weigh(Kind::Node, words, keys, &[])?;
    let text_plain = weigh(Kind::Node, text, texts, &none)?;
    let text_indexed = weigh(Kind::Node, text, texts, &[])?;
    let bytes = |figure, mark| Some(Marked::new(figure, mark));
    Ok(vec![
        row("32 bytes, no indexes", keys, plain, redis_letters, bytes(plain, marks::BYTES_PER_KEY)),
        row(
            "32 bytes, all indexes",
            keys,
            indexed,
            redis_letters,
            bytes(indexed, marks::BYTES_PER_KEY_INDEXED),
        ),
        row("five words, all indexes", keys, indexed_words, redis_words, None),
        row("1 KB of text, no indexes", texts, text_plain, redis_text, None),
        row(
            "1 KB of text, all indexes",
            texts,
            text_indexed,
            redis_text,
            bytes(text_indexed / text_plain.max(1.0), marks::INDEXED_TEXT_RATIO),
        ),
    ])
}

/// Bytes of resident memory for each key of a fill.
fn grown(
    bench: &Bench,
    kind: Kind,
    values: Values,
    keys: u64,
    seed: u64,
    arguments: &[&str],
) -> Result<f64, String> {
    let server = bench.start(kind, arguments)?;
    let before = at_rest(bench, &server)?;
    fill(&server, &Data::new("key:", values)?, keys, seed)?;
    let after = at_rest(bench, &server)?;
    let bytes = after.saturating_sub(before) as f64 / keys as f64;
    eprintln!("memory: {} {arguments:?} {values:?}: {bytes:.0} bytes a key", kind.name());
    Ok(bytes)
}

/// Resident memory when the server is at rest and gives nothing back any more:
/// allocators return what a load has used some seconds after it.
fn at_rest(bench: &Bench, server: &Server) -> Result<u64, String> {
    bench.rest(&[server])?;
    let mut seen = resident_bytes(server.pid())?;
    loop {
        std::thread::sleep(bench.settle);
        let resident = resident_bytes(server.pid())?;
        if resident >= seen - seen / 100 {
            return Ok(resident);
        }
        seen = resident;
    }
}
