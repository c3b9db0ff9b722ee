//! Older copies, in clusters in which nothing else goes wrong.
