#!/usr/bin/env bash
# A rented machine (AutoDL, a ModelScope notebook, or any other): all its GPUs, and runs where they
# stay when the machine is given back.
#
#   bash scripts/cluster/rented.sh run 64m
#   SHUTDOWN=1 bash scripts/cluster/rented.sh run 64m      # AutoDL: ends the rent when it is done
#
# AutoDL keeps /root/autodl-tmp, a notebook of ModelScope /mnt/workspace; OUT_DIR names another
# place. Base models come from ModelScope where its address is nearer: --model.path modelscope:NAME.
# The packages come from PIP_INDEX_URL, if it is set. The same line again goes on.
set -euo pipefail
[ $# -gt 0 ] || {
  echo "usage: bash scripts/cluster/rented.sh run RECIPE [OPTIONS]" >&2
  exit 2
}
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
place=runs
for kept in /root/autodl-tmp /mnt/workspace; do
  if [ -d "$kept" ] && [ -w "$kept" ]; then
    place="$kept/runs"
    break
  fi
done
gpus=0
if command -v nvidia-smi > /dev/null; then
  gpus="$(nvidia-smi --list-gpus | wc -l)"
fi
if ! command -v miao > /dev/null; then
  # shellcheck source=scripts/setup.sh
  source "$ROOT/scripts/setup.sh"
  set_up "[hf,data]"
fi
start=(miao)
[ "$gpus" -lt 2 ] || start=(torchrun --standalone --nproc-per-node "$gpus" --max-restarts 3 -m miao)
code=0
"${start[@]}" "$@" --out_dir "${OUT_DIR:-$place}" || code=$?
[ -z "${SHUTDOWN:-}" ] || shutdown
exit "$code"
