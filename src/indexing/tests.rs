//! Every index against a simple model.
