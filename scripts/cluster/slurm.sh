#!/usr/bin/env bash
# Slurm: one torchrun on each machine, on as many GPUs as the job has there.
#
#   sbatch --nodes 2 --gpus-per-node 8 scripts/cluster/slurm.sh run 104m --out_dir /shared/runs
#
# What follows the file is Miao's. The environment of Miao must be active where sbatch is called, or
# MIAO_PYTHON name its Python; --out_dir lies on storage that all machines share. A killed process
# makes torchrun start all of them again (RESTARTS, 3); a job that was ended goes on where it was
# when the same line is given again. CPUs only: GPUS=0 takes PROCESSES (1) on each machine.
#SBATCH --job-name=miao
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail
[ $# -gt 0 ] || {
  echo "usage: sbatch [--nodes N --gpus-per-node G] slurm.sh run RECIPE --out_dir SHARED" >&2
  exit 2
}
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
each="${GPUS:-${SLURM_GPUS_ON_NODE:-0}}"
[ "$each" -gt 0 ] || each="${PROCESSES:-1}"
# Else a machine that comes back waits for an address that is not said again (docs, page 12).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec srun --kill-on-bad-exit=1 "${MIAO_PYTHON:-python}" -m torch.distributed.run \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$each" \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d \
  --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))" \
  --max-restarts "${RESTARTS:-3}" -m miao "$@"
