#!/usr/bin/env bash
# Simulates clusters with one seed after another, until a seed fails or ctrl-c.
#
#   utilities/simulate.sh [first seed]
#
# Each batch: clusters whose members stay, of 2, 3 and 5 nodes, and such with an
# operator who changes them, up to 5 nodes. Each line: simulated hours so far, and
# what the last batch has seen, members' changes, wipes and hand-backs included. A failure
# says its seed and what was broken; it is replayed by
#   DATASTORE_SIMULATION_SEED=… cargo test -p datastore --lib simulation::tests::nothing
set -euo pipefail
cd "$(dirname "$0")/.."

first="${1:-0}"
batch=20
hours=0
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
while true; do
    if ! DATASTORE_SIMULATION_FIRST="$first" DATASTORE_SIMULATION_SEEDS="$batch" \
        nice -n 10 cargo test --release -q -p datastore --lib simulation::tests::nothing -- --nocapture >"$log" 2>&1; then
        grep DATASTORE_SIMULATION_SEED= "$log" | tail -n 1
        tail -n 60 "$log"
        exit 1
    fi
    while read -r line; do
        hours="$(awk -v sum="$hours" -v more="$(sed 's/ simulated hours.*//; s/.* //' <<<"$line")" 'BEGIN { print sum + more }')"
        echo "seeds to $((first + batch - 1)), $hours simulated hours; the last batch: ${line#*: }"
    done < <(grep "simulated hours" "$log")
    first=$((first + batch))
done
