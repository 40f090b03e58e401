"""Run benchmarks: ``python -m benchmarks [NAME ...] [--save]``.

Without a name, all of them but those that take minutes.

Each prints JSON. The exit status is 1 where a target was missed.
"""

import argparse
import importlib
import sys
import time

from benchmarks.harness import show

NAMES = (
    "convert",
    "cores",
    "size",
    "headers",
    "memory",
    "increment",
    "orchestration",
    "conditions",
    "phantom",
    "worklist",
    "features",
    "dicom_objects",
    "receive",
)
LONG = (
    "reading",
    "predict",
    "command",
    "scale",
    "bulk",
    "arrival",
    "upload_latency",
    "damaged",
    "segmentation",
    "pipeline",
    "classifiers",
    "general",
    "foreign",
    "evidence",
    "viewer",
    "dask_workers",
)  # minutes; run where they are named


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join((*NAMES, *LONG))
    )
    parser.add_argument("--save", action="store_true", help="keep results as JSON")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - {*NAMES, *LONG}):
        known = ", ".join((*NAMES, *LONG))
        parser.error(f"no such benchmark: {unknown[0]}; there are {known}")
    missed = []
    for name in arguments.names or NAMES:
        start = time.perf_counter()
        result = importlib.import_module(f"benchmarks.{name}").run()
        show(name, result, time.perf_counter() - start, save=arguments.save)
        if not result.met:
            missed.append(name)
    if missed:
        print(f"Missed: {', '.join(missed)}.", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
