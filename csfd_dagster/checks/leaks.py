"""How a check tells what models have learnt from that they must not see."""

import dagster as dg

from csfd_core.learning.splits import Leaks

_SHOWN = 5  # studies of each kind


def leak_result(leaks: Leaks) -> dg.AssetCheckResult:
    """Pass where there is no leak; name the first studies of each kind."""
    return dg.AssetCheckResult(
        passed=not leaks,
        metadata={
            "locked": leaks.locked_count,
            "leaked": list(leaks.locked[:_SHOWN]),
            "of_the_held_out_fold": list(leaks.held_out[:_SHOWN]),
        },
    )
