#!/usr/bin/env bash
# Checks the Python client: types with mypy, and its tests against a real node.
#
#   DATASTORE_NODE=target/debug/datastore-node utilities/python/check.sh [directory of a virtual environment]
#
# The environment is made in target/python unless it is there. Without python3
# or its venv module everything is skipped; without a registry only mypy is.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"

if [ -z "${DATASTORE_NODE:-}" ] || [ ! -x "$DATASTORE_NODE" ]; then
    echo "DATASTORE_NODE must be the path of datastore-node's binary, not '${DATASTORE_NODE:-}'" >&2
    exit 1
fi
DATASTORE_NODE="$(cd "$(dirname "$DATASTORE_NODE")" && pwd)/$(basename "$DATASTORE_NODE")"
export DATASTORE_NODE

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "skipped: there is no python3 of version 3.9 or later"
    exit 0
fi
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo "skipped: python3 has no venv module (Debian's package python3-venv)"
    exit 0
fi

environment="${1:-$root/target/python}"
python="$environment/bin/python"
# An environment whose Python is gone, or that was made half, is made anew.
if ! "$python" -m pip --version >/dev/null 2>&1; then
    python3 -m venv --clear "$environment"
fi
pip=("$python" -m pip --quiet --disable-pip-version-check --retries 1 --timeout 10)

echo "== install"
# From a copy: a build leaves its files beside the sources.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -R "$here/pyproject.toml" "$here/README.md" "$here/src" "$work"
if "${pip[@]}" install --force-reinstall --no-deps "$work" 2>"$work/pip.log"; then
    echo "installed"
else
    # Building needs setuptools, which comes from a registry, or from the environment.
    tail -n 3 "$work/pip.log"
    echo "skipped: pip could not install the package; its sources are tested as they are"
    export PYTHONPATH="$work/src"
fi

echo "== types"
if "$python" -m mypy --version >/dev/null 2>&1 || "${pip[@]}" install mypy 2>"$work/pip.log"; then
    (cd "$here" && "$python" -m mypy --cache-dir "$environment/mypy-cache" src/datastore tests examples)
else
    tail -n 3 "$work/pip.log"
    echo "skipped: MYPY IS NOT INSTALLED and pip could not install it; types are not checked"
fi

echo "== tests"
# No compiled files among the sources, and no warning passed over.
export PYTHONDONTWRITEBYTECODE=1
cd "$work"
"$python" -W error -m unittest discover -s "$here/tests" -t "$here/tests"
