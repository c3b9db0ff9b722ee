//! Tests of the codec as a whole, from bytes to requests and from replies to
//! what a JSON parser reads.

mod examples;
mod json_oracle;
mod lines;
mod peer_frame;
mod refusals;
mod replies;

use bytes::Bytes;

use super::{Decoded, LineDecoder, Operation, PageRequest, Request};
use crate::error::{Code, Error};
use crate::limits::LINE_BYTES_MAX_DEFAULT;

/// Everything in `input`, decoded at once, the end of input included.
fn decode_all(input: &[u8], line_bytes_max: usize) -> Vec<(Bytes, Request)> {
    decode_in_parts(&[input], line_bytes_max)
}

/// The same, with each part coming in a read of its own.
fn decode_in_parts(parts: &[&[u8]], line_bytes_max: usize) -> Vec<(Bytes, Request)> {
    let mut decoder = LineDecoder::new(line_bytes_max);
    let mut all = Vec::new();
    let mut keep = |decoded: Decoded| {
        all.extend(decoded.requests.into_iter().map(|request| (decoded.arena.clone(), request)));
    };
    for part in parts {
        decoder.decode(part).into_iter().for_each(&mut keep);
    }
    decoder.finish().into_iter().for_each(&mut keep);
    assert!(
        decoder.finish().is_none() && !decoder.is_within_line(),
        "nothing is left after the end of input"
    );
    all
}

/// One line's request with its arena.
fn decode_line(line: &str) -> (Bytes, Request) {
    let mut all = decode_all(line.as_bytes(), LINE_BYTES_MAX_DEFAULT);
    assert_eq!(all.len(), 1, "{line}");
    all.remove(0)
}

/// One line that must be accepted.
fn accept(line: &str) -> (Bytes, Operation) {
    let (arena, request) = decode_line(line);
    match request.operation {
        Ok(operation) => (arena, operation),
        Err(error) => panic!("{line}: {error}"),
    }
}

/// One line that must be refused with this code.
fn refuse(line: &str, code: Code) -> Error {
    let (_, request) = decode_line(line);
    match request.operation {
        Ok(operation) => panic!("{line} was accepted: {operation:?}"),
        Err(error) => {
            assert_eq!(error.code, code, "{line}: {error}");
            *error
        }
    }
}

/// A request in a form that doesn't depend on where its bytes lie: what its
/// spans stand for, instead of the spans.
fn portrait(arena: &[u8], request: &Request) -> String {
    let show = |span: &super::Span| String::from_utf8_lossy(span.of(arena)).into_owned();
    let page_shown = |page: &PageRequest| {
        format!("{} {:?} {:?}", page.limit, page.prefix.as_ref().map(show), page.after.as_ref().map(show))
    };
    let id = show(&request.id);
    let operation = match &request.operation {
        Err(error) => format!("refused {error}"),
        Ok(Operation::Set { key, value, condition }) => {
            format!("set {:?} {:?} {condition:?}", show(key), show(value))
        }
        Ok(Operation::Get { key, consistency }) => format!("get {:?} {consistency:?}", show(key)),
        Ok(Operation::Delete { key, condition }) => format!("delete {:?} {condition:?}", show(key)),
        Ok(Operation::BulkSet { records }) => {
            let records: Vec<_> = records.iter().map(|(key, value)| (show(key), show(value))).collect();
            format!("bulk_set {records:?}")
        }
        Ok(Operation::BulkGet { keys, consistency }) => {
            format!("bulk_get {:?} {consistency:?}", keys.iter().map(show).collect::<Vec<_>>())
        }
        Ok(Operation::BulkDelete { keys }) => {
            format!("bulk_delete {:?}", keys.iter().map(show).collect::<Vec<_>>())
        }
        Ok(Operation::SearchByValue { value, page, consistency }) => {
            format!("search_by_value {:?} {} {consistency:?}", show(value), page_shown(page))
        }
        Ok(Operation::SearchText { query, matching, page, consistency }) => {
            format!("search_text {:?} {matching:?} {} {consistency:?}", show(query), page_shown(page))
        }
        Ok(Operation::AddVector { key, vector, condition }) => {
            format!("add_vector {:?} {:?} {condition:?}", show(key), numbers(vector.of(arena)))
        }
        Ok(Operation::GetVector { key, consistency }) => {
            format!("get_vector {:?} {consistency:?}", show(key))
        }
        Ok(Operation::VectorSearch { vector, top_k, prefix, consistency }) => format!(
            "vector_search {:?} {top_k} {:?} {consistency:?}",
            numbers(vector.of(arena)),
            prefix.as_ref().map(show)
        ),
        Ok(Operation::Scan { range, consistency }) => format!(
            "scan {:?} {:?} {:?} {} {} {:?} {} {} {consistency:?}",
            range.prefix.as_ref().map(show),
            range.start.as_ref().map(show),
            range.end.as_ref().map(show),
            range.reverse,
            range.limit,
            range.after.as_ref().map(show),
            range.values,
            range.vectors
        ),
        Ok(Operation::Count { prefix, consistency }) => {
            format!("count {:?} {consistency:?}", prefix.as_ref().map(show))
        }
        Ok(Operation::AddMember { node_id, host, port }) => {
            format!("add_member {node_id} {} {port}", show(host))
        }
        Ok(Operation::Stats { section }) => format!("stats {:?}", section.as_ref().map(show)),
        Ok(Operation::Conflicts { limit, after }) => {
            format!("conflicts {limit} {:?}", after.as_ref().map(show))
        }
        Ok(plain) => format!("{plain:?}"),
    };
    let asks = request.asks.as_ref().map(|asks| format!(" {asks:?}")).unwrap_or_default();
    format!("[{id}] {operation}{asks}")
}

/// A line's portrait.
fn portrait_of(line: &str) -> String {
    let (arena, request) = decode_line(line);
    portrait(&arena, &request)
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|number| f32::from_le_bytes(number.try_into().unwrap())).collect()
}

/// A small generator with a seed that a failure can print.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % bound
    }
}
