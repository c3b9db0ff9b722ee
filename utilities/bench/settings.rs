//! How a bench measured, as its report says it.

use serde::Serialize;

/// How it was measured.
#[derive(Serialize)]
pub struct Settings {
    /// Keys of each side.
    pub keys: u64,
    /// Rounds of each comparison.
    pub rounds: usize,
    /// Seconds of a run.
    pub seconds: f64,
    /// What random choices begin with.
    pub seed: u64,
    /// Whether the figures mean nothing, since the run was only to see that all works.
    pub is_quick: bool,
    /// Whether the programs were built without optimisation.
    pub is_debug_build: bool,
}

impl Settings {
    /// What stands above figures that mean nothing, as Markdown; mostly empty.
    pub fn warnings(&self) -> String {
        let mut text = String::new();
        if self.is_quick {
            text.push_str("**A quick run: it shows that the bench works. The figures mean nothing.**\n\n");
        }
        if self.is_debug_build {
            text.push_str("**Built without optimisation: the figures mean nothing.**\n\n");
        }
        text
    }
}
