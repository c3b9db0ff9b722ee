//! Queries that look as if they had operators. There are none: all of it is words, and
//! `-blue` finds what is blue. So whoever types one at a terminal is told.

use crate::output::{for_terminal, note};

/// Tells a person who typed one.
pub fn warn(query: &str) {
    if let Some(word) = operator(query) {
        let word = for_terminal(word);
        note(&format!("there are no operators, phrases or wildcards: {word} is searched for as plain words"));
    }
}

/// The first word that would be more than words elsewhere.
fn operator(query: &str) -> Option<&str> {
    query.split_whitespace().find(|word| {
        let begins = |signs: [char; 2]| {
            word.strip_prefix(signs).is_some_and(|rest| rest.starts_with(char::is_alphabetic))
        };
        let is_field = word.split_once(':').is_some_and(|(field, text)| {
            field.chars().all(|character| character.is_alphabetic() || character == '_')
                && !field.is_empty()
                && !text.is_empty()
                && !text.starts_with("//")
        });
        begins(['-', '+'])
            || is_field
            || word.starts_with(['"', '(', '“'])
            || word.ends_with(['*', '~', '"'])
            || ["AND", "OR", "NOT"].contains(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_an_operator_is_told_from_words() {
        for (query, word) in [
            ("shoe -blue", "-blue"),
            ("+shoe", "+shoe"),
            ("a \"blue shoe\"", "\"blue"),
            ("sho*", "sho*"),
            ("shoo~", "shoo~"),
            ("title:x", "title:x"),
            ("red AND blue", "AND"),
            ("(red blue)", "(red"),
        ] {
            assert_eq!(operator(query), Some(word), "{query}");
        }
        for query in
            ["red shoe", "e-mail", "-5", "3:45 PM", "http://a.example/x", "C++", "a:", "and or not", ""]
        {
            assert_eq!(operator(query), None, "{query}");
        }
    }
}
