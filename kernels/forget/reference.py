"""What forgetting means, in float64 NumPy, written to be read."""

from __future__ import annotations

import numpy as np


def keep_most_used(usage, keep):
    """Indices, ascending, of the elements used more than the (N - keep)-th least used; never nothing for keep > 0."""
    usage = np.asarray(usage, np.float64)
    usage = np.where(np.isnan(usage), -np.inf, usage)
    if keep >= usage.size:
        return np.arange(usage.size)
    threshold = np.sort(usage)[usage.size - keep - 1]
    stay = np.flatnonzero(usage > threshold)
    if stay.size == 0:
        stay = np.sort(np.argsort(-usage, kind="stable")[:keep])
    return stay
