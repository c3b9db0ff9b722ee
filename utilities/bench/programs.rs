//! What the benches' command lines have in common.

use std::path::{Path, PathBuf};

/// Reads a flag's seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.01..=3_600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it must be between 0.01 and 3600".into())
    }
}

/// The directory of this program, where cargo puts the node, too.
pub fn beside_this_program() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    program.parent().map(Path::to_path_buf).ok_or_else(|| "this program is nowhere".into())
}

/// The node's program: the one given, or the one beside this program.
pub fn find_node(given: Option<&Path>, beside: &Path) -> Result<PathBuf, String> {
    let path = given.map_or_else(|| beside.join("datastore-node"), Path::to_path_buf);
    if path.is_file() {
        return Ok(path);
    }
    let build = "build it with `cargo build --release -p datastore-node`, or give --node PATH";
    Err(format!("there is no node at {}: {build}", path.display()))
}
