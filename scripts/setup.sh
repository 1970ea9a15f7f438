# shellcheck shell=bash
# Sourced by run.sh and test.sh: makes the virtual environment and installs what is asked for.
# PYTHON chooses the interpreter (3.11 or newer), VENV_DIR the place (default .venv), TORCH_INDEX
# where PyTorch comes from on Linux without an NVIDIA card (empty: the usual index).

set_up() { # set_up EXTRAS ("" or "[dev]")
  local python="${PYTHON:-python3}" venv="${VENV_DIR:-$ROOT/.venv}" wanted stamp
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "Miao needs Python 3.11 or newer; '$python' is not. Set PYTHON=/path/to/python3.11" >&2
    exit 2
  }
  if [ ! -x "$venv/bin/python" ]; then
    echo "● making the environment $venv"
    "$python" -m venv "$venv" || {
      echo "could not make it; on Debian and Ubuntu: apt install python3-venv" >&2
      exit 2
    }
  fi
  wanted="$(cat "$ROOT/constraints.txt" "$ROOT/pyproject.toml" | cksum) $1 $ROOT"
  stamp="$venv/.miao-installed"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "● installing Miao and what it needs"
    install_torch "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      -c "$ROOT/constraints.txt" -e "$ROOT$1" || exit 1
    echo "$wanted" > "$stamp"
  fi
  PATH="$venv/bin:$PATH"
}

install_torch() { # install_torch VENV: PyTorch itself, where its usual build would be too large
  local index="${TORCH_INDEX-https://download.pytorch.org/whl/cpu}" torch
  torch="$(grep '^torch==' "$ROOT/constraints.txt")"
  if [ "$(uname -s)" != Linux ] || "$1/bin/python" -c "import sys, torch
sys.exit(torch.__version__.partition('+')[0] != '${torch#torch==}')" 2>/dev/null; then
    return 0
  fi
  if command -v nvidia-smi >/dev/null || [ -e /dev/nvidia0 ]; then
    echo "  PyTorch for NVIDIA cards: a download of some gigabytes, this once"
    return 0
  fi
  if [ -n "$index" ]; then
    echo "  no NVIDIA card here: PyTorch for CPUs from $index,"
    echo "  a download of some hundred megabytes, this once (TORCH_INDEX= names another place)"
    "$1/bin/python" -m pip install --disable-pip-version-check --no-deps \
      --retries 1 --timeout 20 --index-url "$index" "$torch" && return 0
    echo "  that place does not answer, or does not have $torch"
  fi
  echo "  PyTorch from the usual index, where the build for Linux is one for NVIDIA cards: some gigabytes"
}
