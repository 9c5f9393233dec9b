"""What consolidate means, in float64 NumPy, written to be read."""

from __future__ import annotations

import numpy as np


def most_used(usage, count, valid=None):
    """Indices of the `count` most used valid elements, most used first, equal usage to the lower index, NaN last."""
    usage = np.asarray(usage, np.float64)
    usage = np.where(np.isnan(usage), -np.inf, usage)
    there = np.arange(usage.size) if valid is None else np.flatnonzero(valid)
    return there[np.argsort(-usage[there], kind="stable")][:count]


def consolidate(key, shrinkage, value, selection, index, valid=None):
    """Key [CK, P], shrinkage [P] and value [O, CV, P] of the prototypes made of the candidates at `index`.

    key [CK, N], shrinkage [N], value [O, CV, N], selection [CK, N]: the candidates.
    """
    k, s, v, e = (np.asarray(a, np.float64) for a in (key, shrinkage, value, selection))
    there = np.arange(k.shape[1]) if valid is None else np.flatnonzero(valid)
    made_shrinkage, made_value = [], []
    for p in index:
        scores = -s[there] / np.sqrt(k.shape[0]) * (e[:, [p]] * (k[:, there] - k[:, [p]]) ** 2).sum(0)
        share = np.exp(scores - scores.max())
        share /= share.sum()
        made_shrinkage.append(s[there] @ share)
        made_value.append(v[:, :, there] @ share)
    return k[:, index], np.array(made_shrinkage), np.stack(made_value, -1)
