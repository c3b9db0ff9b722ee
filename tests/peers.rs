//! Nodes that greet each other.
