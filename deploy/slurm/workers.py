"""A Dask scheduler whose workers are jobs of Slurm: as many as there is work for."""

import argparse
import signal
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster


def cluster_of(
    memory_gb: int, hours: int, partition: str | None, *, has_gpu: bool
) -> SLURMCluster:
    """Return a cluster without workers.

    Args:
        memory_gb: Of each worker, which has one processor.
        hours: After which a worker ends; its studies go to another.
        partition: Of Slurm; ``None``: the default one.
        has_gpu: Each worker gets a GPU, and is asked for what networks do.
    """
    more = ["--lifetime", f"{hours * 60 - 10}m", "--lifetime-stagger", "4m"]
    gpu = ["--resources", "GPU=1"] if has_gpu else []
    return SLURMCluster(
        queue=partition,
        cores=1,
        processes=1,
        memory=f"{memory_gb}GB",
        walltime=f"{hours:02d}:00:00",
        job_extra_directives=["--gres=gpu:1"] if has_gpu else [],
        worker_extra_args=[*more, *gpu],
        scheduler_options={"dashboard": False},
    )


def main() -> None:
    """Write the scheduler's address, and serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=16, help="workers at a time")
    parser.add_argument("--memory", type=int, default=4, help="gigabytes of each")
    parser.add_argument("--hours", type=int, default=4, help="that a worker lives")
    parser.add_argument("--partition", help="of Slurm")
    parser.add_argument("--gpu", action="store_true", help="a GPU for each worker")
    parser.add_argument("--address", type=Path, required=True, help="file to write")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with cluster_of(
        given.memory, given.hours, given.partition, has_gpu=given.gpu
    ) as cluster:
        cluster.adapt(minimum=1, maximum=given.most)
        given.address.write_text(cluster.scheduler_address)
        signal.pause()


if __name__ == "__main__":
    main()
