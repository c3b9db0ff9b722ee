//! A tool.

fn main() {}
