//! One load generator for JSON lines and RESP.
