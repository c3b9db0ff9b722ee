#!/usr/bin/env bash
# Measures which lines the workspace's tests run, the killed nodes' included:
# counters live in a mapped file, so that a SIGKILL doesn't lose them.
#
#   utilities/coverage.sh            a table per file
#   utilities/coverage.sh --html     a page per file, in target/llvm-cov/html
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo llvm-cov --version >/dev/null 2>&1; then
    cargo install cargo-llvm-cov --locked
fi
if command -v rustup >/dev/null; then
    rustup component add llvm-tools
fi

export RUSTFLAGS="-C llvm-args=-runtime-counter-relocation"
export LLVM_PROFILE_FILE_NAME="datastore-%p-%m%c.profraw"
# Test code itself is not counted.
exec cargo llvm-cov --workspace --locked --ignore-filename-regex '(^|/)tests(/|\.rs$)' "$@"
