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
python -m pytest "$@"
