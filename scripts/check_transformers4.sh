#!/usr/bin/env bash
# Compares exported models with transformers 4.57: tokens, logits, conversations, answers.
#
#   bash scripts/check_transformers4.sh               every architecture and rope scaling
#   bash scripts/check_transformers4.sh DIRECTORY...  exported models
#
# Makes an environment of its own, since Miao is otherwise tested with transformers 5.
# Environment: PYTHON, VENV_DIR (default .venv-transformers4), TRANSFORMERS (default 4.57.6).
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
here="$PWD"
cd "$ROOT"
export VENV_DIR="${VENV_DIR:-$ROOT/.venv-transformers4}"
source "$ROOT/scripts/setup.sh"
set_up ""

version="${TRANSFORMERS:-4.57.6}"
# Importing it fails where the versions beside it are not those that it wants.
if ! python -c "import sys, pytest, hypothesis, peft, transformers as t; sys.exit(t.__version__ != '$version')" 2>/dev/null; then
  echo "● installing transformers $version"
  others="$VENV_DIR/constraints.txt"
  grep -vE '^(transformers|tokenizers|huggingface_hub|hf-xet|peft|accelerate)==' constraints.txt > "$others"
  python -m pip install --quiet --disable-pip-version-check -c "$others" \
    "transformers==$version" peft pytest hypothesis
fi

if [ $# = 0 ]; then
  MIAO_ALL_PARITY=1 exec python -m pytest tests/export/test_parity_check.py -s
fi
cd "$here"
for directory in "$@"; do
  python -m miao.export.parity "$directory"
done
