#!/usr/bin/env bash
# Compares exported GGUF files with transformers inside llama.cpp itself: tokens, logits, answers.
#
#   bash scripts/check_llama_cpp.sh              any words go to pytest, e.g. -k deepseek
#
# Makes an environment of its own and compiles llama.cpp into it (6 to 15 minutes, once; this needs
# a C++ compiler; CMake comes with it).
# Environment: PYTHON, VENV_DIR (default .venv-llama-cpp), LLAMA_CPP_PYTHON (the version),
# CMAKE_BUILD_PARALLEL_LEVEL (compiler processes), CMAKE_ARGS (e.g. -DGGML_CUDA=on).
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
VENV_DIR="${VENV_DIR:-$ROOT/.venv-llama-cpp}"
source "$ROOT/scripts/setup.sh"
set_up "[dev,gguf]"

version="${LLAMA_CPP_PYTHON:-0.3.36}"
if ! python -c "import sys, llama_cpp; sys.exit(llama_cpp.__version__ != '$version')" 2>/dev/null; then
  if ! command -v "${CXX:-c++}" >/dev/null; then
    echo "llama.cpp needs a C++ compiler; on Debian and Ubuntu: apt install g++" >&2
    exit 2
  fi
  echo "● compiling llama.cpp (llama-cpp-python $version): 6 to 15 minutes, this once"
  python -m pip install --quiet --disable-pip-version-check \
    -c "$ROOT/constraints.txt" "llama-cpp-python==$version"
fi

echo "● comparing with llama.cpp"
python -m pytest tests/export/test_llama_cpp.py -s "$@"
