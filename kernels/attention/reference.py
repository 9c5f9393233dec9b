"""What attention means, in float64 NumPy, written to be read. Every backend is held to it."""

from __future__ import annotations

import numpy as np


def attention(query, key, value):
    """Readout [P, CV] of query [P, CK], key [N, CK] and value [N, CV]; N >= 1."""
    q, k, v = (np.asarray(a, np.float64) for a in (query, key, value))
    scores = q @ k.T / np.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ v
