"""Dagster's daemon, which looks at its sensors every second: somebody may be waiting.

By itself it looks every five seconds, whatever interval a sensor asks for, and has no
setting for it (``MIN_INTERVAL_LOOP_TIME`` of Dagster 1.13.27; a later version without
it looks as often as it does by itself). Sensors keep to their own intervals.
"""

from typing import Final

from dagster._daemon import sensor
from dagster._daemon.cli import main

_LOOP_S: Final = 1

if __name__ == "__main__":
    sensor.MIN_INTERVAL_LOOP_TIME = _LOOP_S
    main()
