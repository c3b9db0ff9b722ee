//! A line of the interactive mode, taken apart into words.
//!
//! Words are quoted as in a shell, with one exception: JSON needs no quotes.
//! Where a word begins with `{` or `[` and JSON stands there, that is the word,
//! blanks and quotes included; and what ends a `set` or `search-value` line with
//! a JSON string is that string.

use serde::de::IgnoredAny;

/// Commands whose last word is a value.
const WITH_VALUE: [&str; 2] = ["set", "search-value"];

/// The words of a line, or what is wrong with it.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let takes_string = words.first().is_some_and(|command| WITH_VALUE.contains(&command.as_str()));
        let length = match json_length(rest, takes_string) {
            Some(length) => {
                words.push(rest[..length].to_string());
                length
            }
            None => {
                let length = shell_word_length(rest)?;
                let word = &rest[..length];
                match shell_words::split(word).map_err(|error| error.to_string())? {
                    // A comment for a shell; here a key may begin so.
                    none if none.is_empty() => words.push(word.to_string()),
                    one => words.extend(one),
                }
                length
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

/// How long the JSON is that `rest` begins with, if it is a word of its own.
fn json_length(rest: &str, takes_string: bool) -> Option<usize> {
    let is_string = rest.starts_with('"');
    if !(rest.starts_with(['{', '[']) || (takes_string && is_string)) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let length = values.byte_offset();
    let behind = &rest[length..];
    let ends = if is_string {
        behind.is_empty()
    } else {
        behind.is_empty() || behind.starts_with(char::is_whitespace)
    };
    ends.then_some(length)
}

/// Up to the first blank outside of quotes.
fn shell_word_length(rest: &str) -> Result<usize, String> {
    let mut quote: Option<char> = None;
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                characters.next();
            }
            ('"' | '\'', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            (character, None) if character.is_whitespace() => return Ok(at),
            _ => {}
        }
    }
    match quote {
        Some(quote) => Err(format!("a {quote} is not closed")),
        None => Ok(rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn json_needs_no_quotes() {
        let cases: [(&str, &[&str]); 11] = [
            (r#"set k {"a": 1}"#, &["set", "k", r#"{"a": 1}"#]),
            (r#"set k {"a": [1, 2]} --if-absent"#, &["set", "k", r#"{"a": [1, 2]}"#, "--if-absent"]),
            (r#"set k "123""#, &["set", "k", r#""123""#]),
            (r#"set "my key" "a b""#, &["set", "my key", r#""a b""#]),
            (r#"get "my key""#, &["get", "my key"]),
            (r#"set 'it''s' a\ b"#, &["set", "its", "a b"]),
            ("add-vector k [1, -2]", &["add-vector", "k", "[1, -2]"]),
            ("get {x", &["get", "{x"]),
            (r#"search-value "red""#, &["search-value", r#""red""#]),
            ("get #1", &["get", "#1"]),
            ("  ", &[]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn an_open_quote_is_said() {
        assert!(split("get 'k").unwrap_err().contains("not closed"));
    }
}
