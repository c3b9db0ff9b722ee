//! What is printed: tables for a person, lines with tabs for a pipe, JSON.
//!
//! In a line with tabs every tab stands between two columns: a key with control
//! characters is printed as a JSON string, and a value's white space as blanks.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use console::Term;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::arguments::Layout;
use crate::failure::Failure;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Plain,
    Json,
}

/// Where a command prints.
pub struct Output {
    pub format: Format,
    sink: Box<dyn Write + Send>,
}

impl Output {
    /// Stdout, in the layout that was asked for.
    pub fn stdout(layout: Layout) -> Output {
        let format = match layout {
            Layout { json: true, .. } => Format::Json,
            Layout { table: true, .. } => Format::Table,
            _ if io::stdout().is_terminal() => Format::Table,
            _ => Format::Plain,
        };
        Output { format, sink: Box::new(io::BufWriter::new(io::stdout())) }
    }

    /// Prints a line as it is.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.sink.write_all(line.as_bytes())?;
        Ok(self.sink.write_all(b"\n")?)
    }

    /// Prints an object on a line of its own.
    pub fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.sink, object).map_err(io::Error::from)?;
        Ok(self.sink.write_all(b"\n")?)
    }

    /// Prints rows: a table with its header, or lines with tabs.
    pub fn rows(&mut self, header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        if self.format == Format::Table {
            return self.line(&table(header, rows));
        }
        for row in rows {
            self.line(&row.join("\t"))?;
        }
        Ok(())
    }

    /// Hands over what was printed so far.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.sink.flush()?)
    }
}

/// Says something beside the result: on stderr, where that is a terminal. Scripts aren't disturbed.
pub fn note(text: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // Nobody can be told that it can't be written.
        let _ = writeln!(stderr, "note: {text}");
    }
}

/// A table as wide as its content, or as the terminal if that is less.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    // Without a terminal, or on one that doesn't know its size, nothing is too wide.
    if let Some((_, columns)) = Term::stdout().size_checked().filter(|(_, columns)| *columns > 0) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    }
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| for_terminal(cell).into_owned()).collect::<Vec<_>>());
    }
    table.trim_fmt()
}

/// A key as a column: itself, or a JSON string where it has control characters
/// or begins with a quote.
pub fn key_column(key: &str) -> String {
    if key.starts_with('"') || key.contains(char::is_control) {
        for_terminal(&serde_json::Value::from(key).to_string()).into_owned()
    } else {
        key.to_string()
    }
}

/// A value as a column. Within JSON's strings there are no bare tabs and
/// returns: what is replaced is white space.
pub fn value_column(value: &RawValue) -> String {
    value.get().replace(['\t', '\r', '\n'], " ")
}

/// A vector as JSON.
pub fn vector_column(vector: &[f32]) -> String {
    serde_json::to_string(vector).unwrap_or_default()
}

/// Control characters as escapes, so that no data steers the terminal.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}
