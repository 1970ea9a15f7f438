# Sourced by run.sh and test.sh: makes the virtual environment and installs what is asked for.
# PYTHON chooses the interpreter (3.11 or newer), VENV_DIR the place (default .venv).

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
    echo "● installing Miao and what it needs (the first time takes a minute or two)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      -c "$ROOT/constraints.txt" -e "$ROOT$1" || exit 1
    echo "$wanted" > "$stamp"
  fi
  PATH="$venv/bin:$PATH"
}
