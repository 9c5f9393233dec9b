"""What copying means."""

from __future__ import annotations

import numpy as np


def copy(source):
    """A new array of the same numbers; source [N]."""
    return np.array(source, np.float64)
