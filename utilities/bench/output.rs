//! Where a report goes beside a page.

use std::path::Path;

use serde::Serialize;

/// Prints the report's Markdown, and saves the report and its Markdown where that was asked for.
pub fn write_report(
    report: &impl Serialize,
    markdown: &str,
    json_file: Option<&Path>,
    markdown_file: Option<&Path>,
) -> Result<(), String> {
    println!("{markdown}");
    if let Some(path) = json_file {
        let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
        save(path, &(json + "\n"))?;
    }
    if let Some(path) = markdown_file {
        save(path, markdown)?;
    }
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
