//! Arguments that become JSON values and vectors.

use std::io::Read;

use serde_json::value::RawValue;

use crate::arguments::ValueKind;
use crate::failure::Failure;

/// A value as it was given, or, for `-`, as stdin has it.
pub fn given_or_stdin(argument: String) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::usage(format!("the value on stdin can't be read as UTF-8 text: {error}"))
    })?;
    // The newline that ends the text is the shell's.
    let end = text.strip_suffix('\n').map_or(text.len(), str::len);
    text.truncate(end);
    Ok(text)
}

/// JSON if the text is JSON, else a string; or as `kind` says.
pub fn parse_value(text: &str, kind: ValueKind) -> Result<Box<RawValue>, Failure> {
    let string = || serde_json::value::to_raw_value(text).map_err(Failure::usage);
    if kind.string {
        return string();
    }
    match serde_json::from_str::<Box<RawValue>>(text) {
        Ok(value) => Ok(value),
        Err(error) if kind.json_value => {
            Err(Failure::usage(format!("--json-value wants JSON, and `{text}` is none: {error}")))
        }
        Err(_) => string(),
    }
}

/// `1 0.5 -2`, or `[1, 0.5, -2]`.
pub fn parse_vector(numbers: &[String]) -> Result<Vec<f32>, Failure> {
    let wanted = |what: &str| {
        Failure::usage(format!("a vector is numbers or one JSON array of numbers, not `{what}`"))
    };
    match numbers {
        [array] if array.trim_start().starts_with('[') => {
            serde_json::from_str(array).map_err(|_| wanted(array))
        }
        _ => numbers.iter().map(|text| text.parse().map_err(|_| wanted(text))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, string: bool, json_value: bool) -> Option<String> {
        let kind = ValueKind { string, json_value };
        parse_value(text, kind).ok().map(|value| value.get().to_string())
    }

    #[test]
    fn a_value_is_json_if_it_is_json_and_else_a_string() {
        let cases = [
            ("1.50", "1.50"),
            ("alice", "\"alice\""),
            ("\"a\"", "\"a\""),
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("", "\"\""),
        ];
        for (text, json) in cases {
            assert_eq!(parsed(text, false, false).as_deref(), Some(json));
        }
        assert_eq!(parsed("1", true, false).as_deref(), Some("\"1\""));
        assert_eq!(parsed("alice", false, true), None);
    }

    #[test]
    fn a_vector_is_numbers_or_an_array() {
        let texts = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        assert_eq!(parse_vector(&texts(&["1", "-2.5"])).unwrap(), [1.0, -2.5]);
        assert_eq!(parse_vector(&texts(&["[1, -2.5]"])).unwrap(), [1.0, -2.5]);
        assert!(parse_vector(&texts(&["x"])).is_err());
    }
}
