#!/usr/bin/env bash
# Simulates clusters with one seed after another, until a seed fails or ctrl-c.
#
#   utilities/simulate.sh [first seed]
#
# A failure says its seed: DATASTORE_SIMULATION_SEED=… cargo test -p datastore --lib simulation
set -euo pipefail
cd "$(dirname "$0")/.."

first="${1:-0}"
batch=50
while true; do
    echo "seeds $first to $((first + batch - 1))"
    DATASTORE_SIMULATION_FIRST="$first" DATASTORE_SIMULATION_SEEDS="$batch" \
        cargo test --release -q -p datastore --lib simulation::tests::nothing -- --nocapture 2>/tmp/simulate.$$ \
        | grep "simulated hours" || { grep DATASTORE_SIMULATION_SEED= /tmp/simulate.$$ | tail -n 1; tail -n 60 /tmp/simulate.$$; rm -f /tmp/simulate.$$; exit 1; }
    rm -f /tmp/simulate.$$
    first=$((first + batch))
done
