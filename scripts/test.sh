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
echo "● mypy"
mypy
echo "● pytest"
# Tests use one thread each: as many files at a time as there are cores (four at most).
workers="$(python -c 'import os; print(min(4, os.cpu_count() or 1))')"
python -m pytest -n "$workers" --dist loadfile "$@"
