#!/bin/bash
# A training run on a SLURM cluster that is saved and put back into the queue before its time is over.
#
#   sbatch scripts/slurm.sh --config scripts/configs/drivaerml_1m.yaml --point_ranks 4
#   sbatch --nodes 4 scripts/slurm.sh --config scripts/configs/drivaerml_40k.yaml --batch_size 16
#
# Two settings to change: the partition (the next line), and how the environment is set up (ENVIRONMENT below). The nodes,
# GPUs and hours are options of sbatch, too. One task drives one GPU: --ntasks-per-node is the number of GPUs a node.
#SBATCH --partition=gpu
#SBATCH --job-name=flare-geo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@120
# 120 seconds before the end srun's tasks, not this script, get SIGUSR1: they finish the step, save and end with status 138.
# Preemption, after which SLURM requeues on its own, sends SIGTERM: status 143. USR1 here, as loading processes live through
# it best. A step that takes longer than the notice needs a longer one.
set -u
ENVIRONMENT=${ENVIRONMENT:-.venv/bin/activate}

cd "$SLURM_SUBMIT_DIR" || exit 1
# shellcheck disable=SC1090
source "$ENVIRONMENT" || exit 1
srun --kill-on-bad-exit=1 python scripts/train.py "$@" \
    --accelerator gpu --strategy ddp --devices "$SLURM_NTASKS_PER_NODE" --num_nodes "$SLURM_JOB_NUM_NODES"
status=$?
if [ "$status" -eq 138 ]; then # the state is saved: the same command goes on from it
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
