//! What the benches share: `bench_against` and `bench_cluster`.

mod admin;
mod figures;
mod machine;
mod output;
mod page;
pub mod process;
mod programs;
mod settings;

pub use admin::{ask_node, ask_redis};
pub use figures::{Mark, Marked, Spread, grouped, mark, short};
pub use machine::Machine;
pub use output::write_report;
pub use page::Page;
pub use programs::{beside_this_program, find_node, seconds};
pub use settings::Settings;
