//! A word with a server outside of the runs: one question, one answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than a snapshot of any bench takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

fn open(address: SocketAddr, request: &str) -> std::io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    Ok(BufReader::new(stream))
}

/// Asks a node; its answer must be ok.
pub fn ask_node(address: SocketAddr, request: &Value) -> Result<Value, String> {
    let line = || -> std::io::Result<String> {
        let mut line = String::new();
        open(address, &format!("{request}\n"))?.read_line(&mut line)?;
        Ok(line)
    };
    let line = line().map_err(|error| format!("the node didn't answer {request}: {error}"))?;
    let reply: Value = serde_json::from_str(&line).map_err(|_| format!("{request} was answered {line:?}"))?;
    if reply["ok"] == true { Ok(reply) } else { Err(format!("{request} was answered {reply}")) }
}

/// Asks Redis; gives the strings of its answer.
pub fn ask_redis(address: SocketAddr, command: &str) -> Result<Vec<String>, String> {
    let answer = || -> std::io::Result<Result<Vec<String>, String>> {
        let mut reader = open(address, &format!("{command}\r\n"))?;
        let mut strings = Vec::new();
        let mut left = 1;
        while left > 0 {
            left -= 1;
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end();
            let count = line.get(1..).and_then(|digits| digits.parse::<usize>().ok());
            match (line.as_bytes().first(), count) {
                (Some(b'*'), Some(items)) => left += items,
                (Some(b'$'), Some(bytes)) => {
                    let mut text = vec![0; bytes + 2];
                    reader.read_exact(&mut text)?;
                    strings.push(String::from_utf8_lossy(&text[..bytes]).into_owned());
                }
                (Some(b'+' | b':'), _) => strings.push(line[1..].to_string()),
                _ => return Ok(Err(line.to_string())),
            }
        }
        Ok(Ok(strings))
    };
    answer()
        .map_err(|error| format!("Redis didn't answer {command}: {error}"))?
        .map_err(|line| format!("Redis answered {command} with {line:?}"))
}
