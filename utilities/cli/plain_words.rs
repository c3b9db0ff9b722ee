//! Queries that look as if they had operators. There are none: all of it is words, and
//! `-blue` finds what is blue. So whoever types one at a terminal is told.

use crate::output::{for_terminal, note};

/// Tells a person who typed one, or a phrase, whose quotes the shell has taken off.
pub fn warn(words: &[String]) {
    let phrase = words.iter().filter(|_| words.len() > 1).find(|word| word.contains(char::is_whitespace));
    let found = phrase.map(String::as_str).or_else(|| words.iter().find_map(|word| operator(word)));
    if let Some(found) = found {
        let shown: String = found.chars().take(SHOWN_CHARACTERS).collect();
        let shown = for_terminal(&shown);
        note(&format!(
            "there are no operators, phrases or wildcards: {shown} is searched for as plain words"
        ));
    }
}

/// How much of it is shown.
const SHOWN_CHARACTERS: usize = 60;

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
