"""Intervals of shares in closed form; ``bootstrap`` has those of any other score."""

from typing import Final

import numpy as np
import numpy.typing as npt

# Two-sided 95 % quantile of the normal distribution.
_Z95: Final = 1.959963984540054


def wilson_interval(
    successes: npt.ArrayLike, trials: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return Wilson's 95 % interval of a share; NaN where there are no trials.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical
    inference. J. Am. Stat. Assoc. 22 (1927), 209-212.
    """
    count = np.asarray(successes, dtype=np.float64)
    total = np.asarray(trials, dtype=np.float64)
    total = np.where(total > 0, total, np.nan)
    share = count / total
    scale = 1 + _Z95**2 / total
    centre = (share + _Z95**2 / (2 * total)) / scale
    spread = np.sqrt(share * (1 - share) / total + _Z95**2 / (4 * total**2))
    half = _Z95 * spread / scale
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
