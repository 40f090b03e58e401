"""``python -m deploy.demo``: a whole cluster on one machine, from phantom to report.

Makes phantom studies, runs the graph on them in one process, then on a cluster of
services that share nothing but Postgres, S3, MLflow and Dask; compares what came of
both, and removes everything. Logs stay where something went wrong.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.demo.cluster import (
    ALONE,
    DESK,
    Cluster,
    cluster_in,
    program,
    start_graph,
)
from deploy.demo.comparing import files_below, objects_below, require_same
from deploy.demo.kills import Kills
from deploy.demo.machines import DemoError
from deploy.demo.seaweed import requests_of
from deploy.demo.watching import (
    Step,
    instance_at,
    made_in,
    steps_of,
    wait_until_done,
)

MOST_TIMES: Final = 2.0  # as long as one process
_QUICK: Final = {"CSFD_LOOK_EVERY_S": "5", "CSFD_SETTLE_S": "0"}  # nobody copies
_BRIEF: Final = {  # the way, not the numbers
    "CSFD_SEGMENTATION_EPOCHS": "1",
    "CSFD_SEGMENTATION_STEPS_PER_EPOCH": "1",
    "CSFD_CLASSIFICATION_EPOCHS": "1",
    "CSFD_CLASSIFICATION_STEPS_PER_EPOCH": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the demo is asked for.

    Attributes:
        studies: How many.
        locked: Of them, how many are locked test studies at least.
        seed: Of the phantoms.
        is_brief: Trainings take one step.
        has_kills: Everything is killed once meanwhile.
        within_s: Seconds that the cluster may take.
    """

    studies: int
    locked: int
    seed: int
    is_brief: bool
    has_kills: bool
    within_s: float


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    options = _parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    root = Path(tempfile.mkdtemp(prefix="csfd-cluster-"))
    root.chmod(0o711)  # PostgreSQL runs as another user
    try:
        is_within = run(root, options)
    except KeyboardInterrupt:
        say(f"Stopped. Logs: {root / 'logs'}")
        return 130
    except DemoError as error:
        say(f"Failed: {error}\nLogs: {root / 'logs'}")
        return 1
    shutil.rmtree(root)
    return 0 if is_within else 1


def run(root: Path, options: Options) -> bool:
    """Do both and compare; return whether the cluster was quick enough.

    Raises:
        DemoError: If something failed, or differs.
    """
    variables = {**_QUICK, **(_BRIEF if options.is_brief else {})}
    with cluster_in(root, say, variables) as cluster:
        alone = cluster.machines.home(ALONE)
        source, store = alone / "source", alone / "store"
        took_s = _phantom(cluster, source, options)
        say(f"{options.studies} phantom studies: {took_s:.0f} s.")
        alone_s = _run_alone(cluster, source, store, variables)
        say(f"csfd run in one process, on this disk: {alone_s:.0f} s.")
        cluster.call("move", str(source), cluster.url("source"))
        say("The studies are on S3. The graph starts on the cluster.")
        begun = time.time()
        start_graph(cluster)
        before = requests_of(cluster.counts_port)
        steps = _follow(cluster, options, begun)
        requests = requests_of(cluster.counts_port) - before
        cluster_s = max(step.begun_s + step.took_s for step in steps)
        _print_steps(steps)
        told = ", ".join(f"{count} {kind}" for kind, count in requests.most_common())
        say(f"Requests to S3: {told}.")
        same = require_same(
            objects_below(cluster.variables, "store"), files_below(store)
        )
    say(f"The same: {same.files} files, and {same.numbers} numbers of their reports.")
    ratio = cluster_s / alone_s
    say(
        f"One process {alone_s:.0f} s, the cluster {cluster_s:.0f} s: "
        f"{ratio:.2f} times."
    )
    if ratio > MOST_TIMES and not options.has_kills:
        say(f"That is more than {MOST_TIMES:.0f} times.")
    return ratio <= MOST_TIMES or options.has_kills


def _phantom(cluster: Cluster, source: Path, options: Options) -> float:
    return cluster.call(
        *("phantom", str(source), "--studies", str(options.studies)),
        *("--seed", str(options.seed), "--locked", str(options.locked)),
    )


def _run_alone(
    cluster: Cluster, source: Path, store: Path, variables: dict[str, str]
) -> float:
    """Run the graph in one process, with nothing of the cluster; return its seconds."""
    command = [program("csfd"), "run", "--source", str(source), "--store", str(store)]
    return cluster.machines.call(ALONE, command, variables)


def _follow(cluster: Cluster, options: Options, begun: float) -> list[Step]:
    with instance_at(cluster.machines.home(ALONE), {}) as alone:
        wanted = made_in(alone)
    with instance_at(cluster.machines.home(DESK), cluster.variables) as instance:
        kills = Kills(cluster, instance, say) if options.has_kills else None

        def look() -> None:
            if ended := cluster.machines.ended():
                raise DemoError(f"{', '.join(ended)} ended by itself.")
            if kills is not None:
                kills.look()

        wait_until_done(
            instance,
            say,
            studies=options.studies,
            within_s=options.within_s,
            wanted=wanted,
            look=look,
        )
        if kills is not None and not kills.done:
            raise DemoError("Not everything was killed: try more studies.")
        return steps_of(instance, begun)


def _print_steps(steps: list[Step]) -> None:
    say(f"{'at':>6} {'waited':>7} {'took':>7}  step")
    for step in steps:
        times = f"{step.begun_s:5.0f}s {step.waited_s:6.1f}s {step.took_s:6.1f}s"
        status = "" if step.status == "success" else f" ({step.status})"
        partitions = f", {step.partitions}" if step.partitions else ""
        say(f"{times}  {step.assets}{partitions}{status}")


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--studies", type=int, default=24)
    parser.add_argument("--locked", type=int, default=10, help="locked test studies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--brief", action="store_true", help="one step per training")
    parser.add_argument("--kill", action="store_true", help="kill everything once")
    parser.add_argument("--within", type=float, default=1800, metavar="SECONDS")
    given = parser.parse_args(arguments)
    return Options(
        studies=given.studies,
        locked=given.locked,
        seed=given.seed,
        is_brief=given.brief,
        has_kills=given.kill,
        within_s=given.within,
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def say(text: str) -> None:
    """Write a line, with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
