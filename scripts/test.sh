#!/usr/bin/env bash
# Sets everything up, then checks style, types and behaviour. Extra words go to pytest.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
source "$ROOT/scripts/setup.sh"
set_up "[dev]"

echo "● ruff"
ruff check .
ruff format --check .
# mypy keeps one core busy, the tests wait now and then: side by side both are done sooner.
types="$(mktemp)"
mypy > "$types" 2>&1 &
mypy=$!
trap 'kill "$mypy" 2>/dev/null || true; rm -f "$types"' EXIT
echo "● pytest, and mypy beside it"
# Tests use one thread each, and wait for a quarter of their time: one file more at a time than there
# are cores (four at most), in the order that tests/conftest.py gives them.
workers="$(python -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')"
failed=0
python -m pytest -n "$workers" --dist loadfile --no-loadscope-reorder "$@" || failed=$?
echo "● mypy"
wait "$mypy" || failed=$((failed ? failed : $?))
cat "$types"
exit "$failed"
