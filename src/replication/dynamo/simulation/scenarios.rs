//! Small scenes, each of one thing.

#![cfg(test)]
