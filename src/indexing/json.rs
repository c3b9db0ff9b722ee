//! A walker over JSON text that the decoder has already found valid.
//!
//! It checks nothing twice: it finds strings and undoes their escapes. On text
//! that isn't valid after all it stops early; it never panics and never turns
//! round.

/// A string's content between its quotes, still escaped.
pub(super) struct RawString<'a> {
    /// The bytes between the quotes.
    pub(super) content: &'a [u8],
    /// Whether there is a backslash among them.
    pub(super) escaped: bool,
    /// The position behind the closing quote.
    pub(super) next: usize,
}

/// Reads the string whose content begins at `start`, behind its opening quote;
/// `None` when it is never closed.
pub(super) fn read_string(json: &[u8], start: usize) -> Option<RawString<'_>> {
    let mut position = start;
    let mut escaped = false;
    loop {
        let offset = json.get(position..)?.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
        position += offset;
        if json[position] == b'"' {
            return Some(RawString { content: &json[start..position], escaped, next: position + 1 });
        }
        escaped = true;
        position += 2;
    }
}

/// The first position at or behind `position` that isn't white space.
pub(super) fn skip_space(json: &[u8], mut position: usize) -> usize {
    while matches!(json.get(position), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        position += 1;
    }
    position
}

/// Appends `content` to `output` with its escapes undone.
pub(super) fn unescape(content: &[u8], output: &mut Vec<u8>) {
    let mut position = 0;
    while position < content.len() {
        let plain =
            content[position..].iter().position(|&byte| byte == b'\\').unwrap_or(content.len() - position);
        output.extend_from_slice(&content[position..position + plain]);
        position += plain + 1;
        let Some(&letter) = content.get(position) else { return };
        position += 1;
        match letter {
            b'b' => output.push(8),
            b'f' => output.push(12),
            b'n' => output.push(b'\n'),
            b'r' => output.push(b'\r'),
            b't' => output.push(b'\t'),
            b'u' => position = unescape_unicode(content, position, output),
            other => output.push(other),
        }
    }
}

/// Undoes one `\uXXXX`, or two that form a surrogate pair, whose first digit
/// is at `position`; gives the position behind it.
fn unescape_unicode(content: &[u8], position: usize, output: &mut Vec<u8>) -> usize {
    let Some(first) = hexadecimal(content, position) else { return content.len() };
    let mut next = position + 4;
    let mut scalar = first;
    if (0xd800..0xdc00).contains(&first)
        && content.get(next..next + 2) == Some(b"\\u")
        && let Some(second @ 0xdc00..0xe000) = hexadecimal(content, next + 2)
    {
        scalar = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        next += 6;
    }
    let character = char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
    output.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    next
}

fn hexadecimal(content: &[u8], position: usize) -> Option<u32> {
    content.get(position..position + 4)?.iter().try_fold(0, |number, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(number << 4 | digit)
    })
}

/// Gives every string of the value to `visit`, unescaped, in the order of the
/// text; the names of object members are left out. No nesting is followed: in
/// JSON a string is a name exactly when a colon follows it.
pub(super) fn for_each_string(json: &[u8], mut visit: impl FnMut(&str)) {
    let mut unescaped = Vec::new();
    let mut position = 0;
    while let Some(offset) = json[position..].iter().position(|&byte| byte == b'"') {
        let Some(string) = read_string(json, position + offset + 1) else { return };
        position = string.next;
        if json.get(skip_space(json, position)) == Some(&b':') {
            continue;
        }
        let content = if string.escaped {
            unescaped.clear();
            unescape(string.content, &mut unescaped);
            &unescaped
        } else {
            string.content
        };
        if let Ok(text) = std::str::from_utf8(content) {
            visit(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings(json: &str) -> Vec<String> {
        let mut found = Vec::new();
        for_each_string(json.as_bytes(), |text| found.push(text.to_owned()));
        found
    }

    fn model(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) => found.push(text.clone()),
            serde_json::Value::Array(items) => items.iter().for_each(|item| model(item, found)),
            serde_json::Value::Object(members) => members.values().for_each(|item| model(item, found)),
            _ => {}
        }
    }

    #[test]
    fn strings_at_any_depth_are_found_and_names_are_not() {
        let json = r#" {"a" : "one", "b":[1,"two",{"c\"d":"thr\u0065e"},["\ud83d\ude00\n\/\\\""]], "e":{}} "#;
        assert_eq!(strings(json), ["one", "two", "three", "😀\n/\\\""]);
        assert_eq!(strings("\"\""), [""]);
        assert_eq!(strings("12"), [""; 0]);
    }

    proptest! {
        #[test]
        fn strings_are_those_of_an_independent_parser(texts in prop::collection::vec(any::<String>(), 0..6)) {
            let value = serde_json::json!({ "x": texts, "y": { "z": texts } });
            let mut expected = Vec::new();
            model(&value, &mut expected);
            prop_assert_eq!(strings(&value.to_string()), expected);
        }

        #[test]
        fn nonsense_ends_quietly(text in r#"[\\"u0-9a-f{}:, é]{0,40}"#) {
            strings(&text);
        }
    }
}
