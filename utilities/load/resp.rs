//! Redis's protocol, as far as SET and GET need it.

use std::borrow::Cow;

use memchr::memchr;

use super::protocol::{Answer, Protocol, Refusal, shown};

/// RESP2.
#[derive(Clone)]
pub struct Resp;

impl Protocol for Resp {
    fn set(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
        bulk(key, out);
        bulk(value, out);
    }

    fn get(&mut self, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
        bulk(key, out);
    }

    fn reply<'a>(&mut self, input: &'a [u8]) -> Option<(Answer<'a>, usize)> {
        let newline = memchr(b'\n', input)?;
        let taken = newline + 1;
        let unexpected = |taken| (Answer::Unexpected(shown(&input[..taken])), taken);
        let Some(line) = input[..newline].strip_suffix(b"\r") else { return Some(unexpected(taken)) };
        match line {
            b"+OK" => Some((Answer::Stored, taken)),
            b"$-1" => Some((Answer::Missing, taken)),
            [b'-', message @ ..] => Some((Answer::Refused(refusal(message)), taken)),
            [b'$', digits @ ..] => {
                let Some(length) = decimal(digits) else { return Some(unexpected(taken)) };
                let end = taken.checked_add(length)?;
                let tail = input.get(end..end + 2)?;
                if tail != b"\r\n" {
                    return Some(unexpected(end + 2));
                }
                Some((Answer::Found(Cow::Borrowed(&input[taken..end])), end + 2))
            }
            _ => Some(unexpected(taken)),
        }
    }
}

/// An error's first word is its code. Redis refuses before it acts, except where
/// it can't say.
fn refusal(message: &[u8]) -> Refusal {
    let message = String::from_utf8_lossy(message);
    let code = message.split(' ').next().unwrap_or_default().to_string();
    Refusal { code, outcome: "not told".into() }
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    push_decimal(bytes.len(), out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// By hand: `write!` takes longer than all the rest of a request.
fn push_decimal(number: usize, out: &mut Vec<u8>) {
    if number >= 10 {
        push_decimal(number / 10, out);
    }
    out.push(b'0' + (number % 10) as u8);
}

fn decimal(digits: &[u8]) -> Option<usize> {
    const DIGITS_MAX: usize = 10;
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::Resp;
    use crate::load::protocol::tests::cut_everywhere;
    use crate::load::protocol::{Answer, Protocol, Refusal};

    #[test]
    fn requests_have_their_lengths() {
        let mut out = Vec::new();
        Resp.set(b"key:000000000001", &[b'v'; 105], &mut out);
        let value = "v".repeat(105);
        let wanted = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$105\r\n{value}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
        let mut out = Vec::new();
        Resp.get(b"k", &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }

    #[test]
    fn replies_are_read_wherever_they_are_cut() {
        let stream = "+OK\r\n$3\r\na\nc\r\n$-1\r\n-OOM command not allowed\r\n$0\r\n\r\n+OK\r\n";
        let refusal = Refusal { code: "OOM".into(), outcome: "not told".into() };
        let wanted = [
            Answer::Stored,
            Answer::Found(Cow::Borrowed(b"a\nc")),
            Answer::Missing,
            Answer::Refused(refusal),
            Answer::Found(Cow::Borrowed(b"")),
            Answer::Stored,
        ];
        cut_everywhere(&Resp, stream.as_bytes(), &wanted);
    }

    #[test]
    fn what_is_no_reply_is_said() {
        for reply in
            ["+PONG\r\n", ":1\r\n", "\n", "+OK\n", "$x\r\n", "$\r\n", "$99999999999\r\n", "$1\r\nabc"]
        {
            let (answer, taken) = Resp.reply(reply.as_bytes()).unwrap();
            assert!(matches!(answer, Answer::Unexpected(_)), "{reply:?} → {answer:?}");
            assert_eq!(taken, reply.len(), "{reply:?}");
        }
    }
}
