#!/usr/bin/env bash
#SBATCH --job-name=csfd
#SBATCH --time=2-00:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --gres=gpu:1
#SBATCH --signal=B:TERM@120
#
# csfd on a cluster of Slurm: this job trains on its GPU and asks Slurm for the workers of
# everything else, as many as there is work for (dask-jobqueue).
#
#   CSFD_SOURCE=/project/rsna CSFD_STORE=/project/store sbatch deploy/slurm/csfd.sh
#
# Source and store lie on a file system that every node has, or on S3. A job that comes to
# its end goes on where it was when it is submitted again.
set -euo pipefail

: "${CSFD_SOURCE:?}" "${CSFD_STORE:?}"
VENV=${VENV_OF_CSFD:-$HOME/csfd/.venv}
WORKERS=${SLURM_WORKERS:-16}
scheduler_file=$(mktemp -p "${TMPDIR:-/tmp}" csfd-dask.XXXXXX)
trap 'kill $(jobs -p) 2>/dev/null; rm -f "$scheduler_file"' EXIT
trap 'exit 143' TERM

"$VENV/bin/python" "$(dirname "${SLURM_SCRIPT:-$0}")/workers.py" \
  --most "$WORKERS" --address "$scheduler_file" &
while [[ ! -s $scheduler_file ]]; do sleep 1; done
CSFD_DASK=$(cat "$scheduler_file")
export CSFD_DASK

"$VENV/bin/csfd" run --profile full &
wait $!
