"""What aggregate means, in float64 NumPy, written to be read. Every backend is held to it."""

from __future__ import annotations

import numpy as np


def aggregate(logits, epsilon=1e-7):
    """Logits [O+1, P], background first, of objects' own logits [O, P]."""
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    q = np.concatenate([np.prod(1 - p, axis=0, keepdims=True), p])
    q = q.clip(epsilon, 1 - epsilon)
    return np.log(q / (1 - q))
