#!/usr/bin/env bash
# Simulates clusters with one seed after another, until a seed fails or ctrl-c.
#
#   utilities/simulate.sh [first seed]
#
# Each batch, in leader mode: clusters whose members stay, of 2, 3 and 5 nodes, and such
# with an operator who changes them, up to 5 nodes; both also with disks that are set
# back to older copies. In dynamo mode: clusters of 3, 5 and
# 7 nodes, with evictions, older copies of directories and wrong clocks. Each line:
# simulated hours so far, and what the last batch has seen; in dynamo mode how long it
# took until all had the same, too. A failure says its seed and what was broken; it is
# replayed by
#   DATASTORE_SIMULATION_SEED=… cargo test -p datastore --lib simulation::tests::nothing
set -euo pipefail
cd "$(dirname "$0")/.."

first="${1:-0}"
batch=20
hours=0
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
while true; do
    for mode in replication::simulation dynamo::simulation; do
        if ! DATASTORE_SIMULATION_FIRST="$first" DATASTORE_SIMULATION_SEEDS="$batch" \
            nice -n 10 cargo test --release -q -p datastore --lib "$mode::tests::nothing" -- --nocapture >"$log" 2>&1; then
            grep DATASTORE_SIMULATION_SEED= "$log" | tail -n 1
            tail -n 60 "$log"
            exit 1
        fi
        while read -r line; do
            hours="$(awk -v sum="$hours" -v more="$(sed 's/ simulated hours.*//; s/.* //' <<<"$line")" 'BEGIN { print sum + more }')"
            echo "$mode, seeds to $((first + batch - 1)), $hours simulated hours; the last batch: ${line#*: }"
        done < <(grep "simulated hours" "$log")
    done
    first=$((first + batch))
done
