#!/usr/bin/env bash
# One command: sets everything up, then grows a model from text to a chat.
#
#   bash scripts/run.sh                 the seedling recipe: 8 to 12 minutes on two CPU cores
#   bash scripts/run.sh --smoke-test    the same chain, tiny: about a minute
#   bash scripts/run.sh --corpus.paths my_texts/    any option of the recipe
#   bash scripts/run.sh my_texts/ --hours 1         the best model from your text in an hour
#
# A second call skips what is done, and an interrupted one goes on where it was.
# Environment: PYTHON, VENV_DIR (default .venv), TORCH_INDEX (where PyTorch for CPUs comes from),
# OUT_DIR (default runs), RECIPE, PRETRAIN_ARGS, SFT_ARGS, DPO_ARGS (options of a stage, e.g.
# SFT_ARGS="--epochs 2").
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$ROOT/scripts/setup.sh"
path="$PATH"
set_up ""
miao="$(command -v miao)"

if [ $# -gt 0 ] && [[ "$1" != -* ]]; then
  PATH="$path" exec "$miao" grow "$@" --out_dir "${OUT_DIR:-runs}"
fi
recipe="${RECIPE:-seedling}"
words=(--out_dir "${OUT_DIR:-runs}")
if [ "${1:-}" = "--smoke-test" ]; then
  shift
  recipe=smoke
fi
add_stage() { # add_stage NAME "--key value ...": each key becomes --NAME.key
  local word
  for word in $2; do
    case "$word" in
      --"$1".*) words+=("$word") ;;
      --*) words+=("--$1.${word#--}") ;;
      *) words+=("$word") ;;
    esac
  done
}
add_stage pretrain "${PRETRAIN_ARGS:-}"
add_stage sft "${SFT_ARGS:-}"
add_stage dpo "${DPO_ARGS:-}"

# With the PATH of who calls, so that Miao can say whether the environment is active there.
PATH="$path" exec "$miao" run "$recipe" "${words[@]}" "$@"
