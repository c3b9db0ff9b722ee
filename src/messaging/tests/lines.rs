//! Lines: where they end, those that are too long, and that neither the cuts of
//! the network nor anything a client sends changes what is understood.

use proptest::prelude::*;

use super::examples::EXAMPLES;
use super::refusals::REFUSALS;
use super::{Random, decode_in_parts, portrait};
use crate::error::Code;
use crate::limits::{LINE_BYTES_MAX_DEFAULT, SOCKET_READ_BYTES};
use crate::messaging::LineDecoder;

fn portraits(parts: &[&[u8]], line_bytes_max: usize) -> Vec<String> {
    let all = decode_in_parts(parts, line_bytes_max);
    all.iter().map(|(arena, request)| portrait(arena, request)).collect()
}

/// How many requests an input must yield: one for each line that isn't blank.
fn lines_that_count(input: &[u8], line_bytes_max: usize) -> usize {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    input
        .split(|&byte| byte == b'\n')
        .filter(|line| line.len() > line_bytes_max || !line.iter().all(is_blank))
        .count()
}

#[test]
fn lines_end_with_or_without_carriage_return_and_blank_ones_are_skipped() {
    let input = b"\n\r\n  \t\r\n{\"op\":\"ping\",\"id\":1}\r\n\n{\"op\":\"ping\",\"id\":2}\n{\"op\":\"ping\",\"id\":3}";
    assert_eq!(portraits(&[input], 100), ["[1] Ping", "[2] Ping", "[3] Ping"]);
    assert!(portraits(&[b"\n \n\r\n", b"\r"], 100).is_empty());
}

#[test]
fn a_half_sent_line_waits_and_is_answered_at_the_end_of_input() {
    let mut decoder = LineDecoder::new(100);
    assert_eq!(decoder.decode(b"{\"op\":\"ping\"}\n{\"op\":\"co").unwrap().requests.len(), 1);
    assert!(decoder.decode(b"").is_none());
    assert!(decoder.is_within_line());
    assert_eq!(decoder.half(), b"{\"op\":\"co");
    let last = decoder.finish().unwrap();
    assert_eq!(last.requests[0].operation.as_ref().unwrap_err().code, Code::ParseError);
    assert!(decoder.finish().is_none());
    assert!(!decoder.is_within_line());
}

#[test]
fn all_lines_of_a_read_share_one_arena() {
    let mut read = Vec::new();
    for (line, _) in EXAMPLES {
        read.extend_from_slice(line.as_bytes());
        read.extend_from_slice(b"\n");
    }
    let decoded = LineDecoder::new(LINE_BYTES_MAX_DEFAULT).decode(&read).unwrap();
    let shown: Vec<_> = decoded.requests.iter().map(|request| portrait(&decoded.arena, request)).collect();
    let expected: Vec<_> = EXAMPLES.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(shown, expected);
}

#[test]
fn a_line_may_be_exactly_as_long_as_the_limit() {
    let line = br#"{"op":"ping","id":1}"#;
    for end in ["\n", "\r\n", ""] {
        let input = [&line[..], end.as_bytes()].concat();
        assert_eq!(portraits(&[&input], line.len()), ["[1] Ping"], "{end:?}");
        let refused = portraits(&[&input], line.len() - 1);
        assert_eq!(refused.len(), 1);
        assert!(refused[0].contains("line_too_long: a line may have 19 bytes"), "{refused:?}");
    }
}

#[test]
fn a_line_that_is_too_long_is_answered_once_with_its_id_and_the_next_one_is_read() {
    let long = format!("{{\"id\":\"a\",\"op\":\"set\",\"key\":\"k\",\"value\":\"{}\"}}", "x".repeat(500));
    let input = format!("{{\"op\":\"ping\"}}\n{long}\n{{\"op\":\"count\"}}\n{long}");
    let shown = portraits(&[input.as_bytes()], 64);
    let refused = "[\"a\"] refused line_too_long: a line may have 64 bytes";
    assert_eq!(shown, ["[] Ping", refused, "[] count None Default", refused]);
    let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
    assert_eq!(portraits(&bytes, 64), shown);
    // An id that the limit cuts is no id.
    let cut = format!("{{\"id\":{}", "1".repeat(100));
    assert_eq!(portraits(&[cut.as_bytes()], 64), ["[] refused line_too_long: a line may have 64 bytes"]);
}

#[test]
fn a_line_of_200_mib_is_drained_in_bounded_memory() {
    const LINE_BYTES_MAX: usize = 1 << 20;
    let mut decoder = LineDecoder::new(LINE_BYTES_MAX);
    let read = vec![b'x'; SOCKET_READ_BYTES];
    let mut answers = 0;
    for position in 0..(200 << 20) / SOCKET_READ_BYTES {
        answers += decoder.decode(&read).map_or(0, |decoded| decoded.requests.len());
        assert!(decoder.half().len() <= LINE_BYTES_MAX + SOCKET_READ_BYTES);
        assert!(decoder.half_bytes() <= 2 * (LINE_BYTES_MAX + SOCKET_READ_BYTES), "{}", decoder.half_bytes());
        if position * SOCKET_READ_BYTES > 2 * LINE_BYTES_MAX {
            assert_eq!((answers, decoder.half_bytes()), (1, 0));
        }
    }
    let decoded = decoder.decode(b"xx\n{\"op\":\"ping\",\"id\":4}\n").unwrap();
    assert_eq!(portrait(&decoded.arena, &decoded.requests[0]), "[4] Ping");
    assert_eq!(decoded.requests.len(), 1);
}

#[test]
fn a_large_request_does_not_leave_its_memory_with_the_connection() {
    let mut decoder = LineDecoder::new(LINE_BYTES_MAX_DEFAULT);
    let line = format!("{{\"op\":\"set\",\"key\":\"k\",\"value\":\"{}\"}}\n{{\"op", "x".repeat(4 << 20));
    let decoded: Vec<_> =
        line.as_bytes().chunks(SOCKET_READ_BYTES).filter_map(|read| decoder.decode(read)).collect();
    assert_eq!(decoded.len(), 1);
    assert_eq!(decoder.half(), b"{\"op");
    assert!(decoder.half_bytes() <= 16, "{}", decoder.half_bytes());
    assert!(decoder.finish().is_some());
    assert_eq!(decoder.half_bytes(), 0);
}

#[test]
fn an_arena_is_exactly_as_long_as_its_lines_and_what_was_made_of_them() {
    let mut decoder = LineDecoder::new(LINE_BYTES_MAX_DEFAULT);
    let escaped = "{\"op\":\"get\",\"key\":\"\\u0041\\u0042\"}\n";
    let vector = "{\"op\":\"add_vector\",\"key\":\"k\",\"vector\":[1,2,3]}\n";
    let ping = "{\"op\":\"ping\"}\n";
    // What came before, what comes, and how many bytes its requests need of it.
    let reads = [
        (ping.to_string(), ping.len()),
        (format!("{escaped}{vector}{{\"op"), escaped.len() + 2 + vector.len() + 12),
        (format!("\":\"ping\"}}\n{ping}"), 2 * ping.len()),
        (escaped.repeat(1_000), 1_000 * (escaped.len() + 2)),
        (ping.to_string(), ping.len()),
    ];
    for (read, needed) in reads {
        let arena = decoder.decode(read.as_bytes()).unwrap().arena;
        assert_eq!(arena.len(), needed, "{read:?}");
        assert_eq!(arena.try_into_mut().map(|alone| alone.capacity()), Ok(needed), "{read:?}");
    }
    assert!(decoder.half_bytes() == 0, "a connection at rest has no buffer");
}

/// Changes a few bytes of a line: another line's piece, a doubled, dropped or random byte.
fn mutate(random: &mut Random, line: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        let place = random.below(line.len() + 1);
        match random.below(4) {
            0 => {
                let other = EXAMPLES[random.below(EXAMPLES.len())].0.as_bytes();
                let start = random.below(other.len());
                let end = start + random.below(other.len() - start + 1);
                line.splice(place..place, other[start..end].iter().copied());
            }
            1 => line.insert(place, random.below(256) as u8),
            2 if place < line.len() => drop(line.remove(place)),
            _ => line.truncate(place),
        }
    }
}

#[test]
fn mutated_lines_yield_one_request_each_and_keep_the_arena_sound() {
    for seed in 0..30_000u64 {
        let mut random = Random(seed);
        let mut input = Vec::new();
        for _ in 0..1 + random.below(3) {
            let source = random.below(EXAMPLES.len() + REFUSALS.len());
            let line =
                EXAMPLES.get(source).map_or_else(|| REFUSALS[source - EXAMPLES.len()].0, |example| example.0);
            let mut line = line.as_bytes().to_vec();
            mutate(&mut random, &mut line);
            input.extend_from_slice(&line);
            input.push(b'\n');
        }
        let line_bytes_max = [40, 80, 10_000][random.below(3)];
        let whole = portraits(&[&input], line_bytes_max);
        // A `\r` before the newline doesn't count towards the limit; mutation hardly makes one there.
        assert_eq!(whole.len(), lines_that_count(&input, line_bytes_max), "seed {seed}");
        let cut = random.below(input.len() + 1);
        assert_eq!(portraits(&[&input[..cut], &input[cut..]], line_bytes_max), whole, "seed {seed}");
    }
}

/// A request's fields in some order with some white space.
fn spaced(fields: &[String], spaces: &[usize]) -> String {
    let mut spaces = spaces.iter().cycle().map(|&space| ["", " ", "\t", "  ", "\r "][space % 5]);
    let mut space = || spaces.next().unwrap_or_default();
    let fields: Vec<String> = fields
        .iter()
        .map(|field| {
            let (name, value) = field.split_once(':').unwrap();
            format!("{}{name}{}:{}{value}{}", space(), space(), space(), space())
        })
        .collect();
    format!("{}{{{}}}{}", space(), fields.join(","), space())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neither_the_order_of_fields_nor_white_space_matters(
        key in "\\PC{1,20}", text: String, id: i64, spaces in proptest::collection::vec(0usize..5, 1..40),
        order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let key = serde_json::to_string(&key).unwrap();
        let value = serde_json::to_string(&[&text]).unwrap();
        let fields = [
            "\"op\":\"set\"".to_string(),
            format!("\"key\":{key}"),
            format!("\"value\":{value}"),
            format!("\"id\":{id}"),
            "\"if_version\":\"3.0\"".to_string(),
        ];
        let shuffled: Vec<String> = order.iter().map(|&place| fields[place].clone()).collect();
        let plain = portraits(&[format!("{{{}}}", fields.join(",")).as_bytes()], LINE_BYTES_MAX_DEFAULT);
        let other = portraits(&[spaced(&shuffled, &spaces).as_bytes()], LINE_BYTES_MAX_DEFAULT);
        prop_assert!(plain[0].contains("] set "), "{:?}", plain);
        prop_assert_eq!(plain, other);
    }

    #[test]
    fn arbitrary_bytes_yield_one_request_a_line(
        mut input in proptest::collection::vec(
            prop_oneof![4 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b'"'), 1 => Just(b'{')], 0..300),
    ) {
        input.retain(|&byte| byte != b'\r');
        prop_assert_eq!(portraits(&[&input], 50).len(), lines_that_count(&input, 50));
        prop_assert_eq!(portraits(&[&input], 10_000).len(), lines_that_count(&input, 10_000));
    }

    #[test]
    fn the_cuts_of_the_network_do_not_matter(
        picks in proptest::collection::vec((0..EXAMPLES.len(), any::<bool>()), 1..8),
        mut cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        line_bytes_max in prop_oneof![Just(30usize), Just(60), Just(10_000)],
        last_newline: bool,
    ) {
        let mut input = Vec::new();
        for (pick, carriage_return) in picks {
            input.extend_from_slice(EXAMPLES[pick].0.as_bytes());
            input.extend_from_slice(if carriage_return { b"\r\n" } else { b"\n" });
        }
        if !last_newline {
            input.pop();
        }
        let mut places: Vec<usize> = cuts.drain(..).map(|cut| cut.index(input.len())).collect();
        places.extend([0, input.len()]);
        places.sort_unstable();
        let parts: Vec<&[u8]> = places.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        prop_assert_eq!(portraits(&parts, line_bytes_max), portraits(&[&input], line_bytes_max));
    }
}

#[test]
fn of_very_many_short_lines_so_many_are_decoded_at_once_as_are_good_for_one_turn() {
    let mut decoder = LineDecoder::new(LINE_BYTES_MAX_DEFAULT);
    let read = [b"x\n".repeat(30_000), b"{\"op\":\"ping\",\"id\":7}\n{\"op".to_vec()].concat();
    let mut decoded: Vec<_> = decoder.decode(&read).into_iter().collect();
    while decoder.has_more() {
        decoded.extend(decoder.more());
    }
    assert_eq!(decoded.iter().map(|decoded| decoded.requests.len()).max(), Some(1_024));
    assert_eq!(decoded.iter().map(|decoded| decoded.requests.len()).sum::<usize>(), 30_001);
    let last = decoded.last().unwrap();
    let ping = last.requests.last().unwrap();
    assert_eq!((ping.id.of(&last.arena), ping.operation.is_ok()), (&b"7"[..], true));
    assert_eq!(decoder.half(), b"{\"op");
}

#[test]
fn a_line_that_is_refused_before_its_end_is_answered_once_and_thrown_away() {
    let mut decoder = LineDecoder::new(LINE_BYTES_MAX_DEFAULT);
    let refusal = || crate::error::Error::overloaded("no room");
    assert!(decoder.refuse_half(refusal()).is_none(), "none has begun");
    assert!(decoder.decode(b"{\"id\":\"mine\",\"op\":\"set\",\"value\":\"aaaa").is_none());
    let refused = decoder.refuse_half(refusal()).unwrap();
    assert_eq!(refused.requests.len(), 1);
    assert_eq!(refused.requests[0].id.of(&refused.arena), b"\"mine\"");
    assert!(decoder.is_within_line() && decoder.half_bytes() == 0);
    assert!(decoder.decode(b"aaaa").is_none());
    let next = decoder.decode(b"aa\"}\n{\"op\":\"ping\"}\n").unwrap();
    assert_eq!(next.requests.len(), 1);
    assert!(next.requests[0].operation.is_ok());
}

#[test]
fn a_first_line_of_another_protocol_is_told_before_it_is_refused_for_want_of_room() {
    let mut decoder = LineDecoder::new(LINE_BYTES_MAX_DEFAULT);
    assert!(decoder.decode(&[b"POST /", &b"a".repeat(70_000)[..]].concat()).is_none());
    assert!(decoder.refuse_half(crate::error::Error::overloaded("no room")).is_none());
    assert!(decoder.other_protocol().is_some(), "what follows must not be executed");
}
