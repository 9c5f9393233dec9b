"""What topk_readout means, in float64 NumPy, written to be read. Every backend is held to it."""

from __future__ import annotations

import numpy as np


def similarity(key, query_key, shrinkage=None, selection=None, form="anisotropic_l2"):
    """Scores S[n, p] of key [CK, N] against query_key [CK, P]; shrinkage [N], selection [CK, P]."""
    k = np.asarray(key, np.float64)
    q = np.asarray(query_key, np.float64)
    root = np.sqrt(k.shape[0])
    if form == "dot":
        return k.T @ q / root
    if form == "l2":
        return (2 * k.T @ q - (k * k).sum(0)[:, None]) / root
    if form != "anisotropic_l2":
        raise ValueError(form)
    e = np.ones_like(q) if selection is None else np.asarray(selection, np.float64)
    s = np.ones(k.shape[1]) if shrinkage is None else np.asarray(shrinkage, np.float64)
    scores = np.empty((k.shape[1], q.shape[1]))
    for p in range(q.shape[1]):
        difference = k - q[:, p : p + 1]
        scores[:, p] = -s / root * (e[:, p : p + 1] * difference**2).sum(0)
    return scores


def weights(scores, top_k=None, valid=None):
    """Affinity [N, P]: a softmax of every column over its top_k greatest finite scores, equal ones by lower n."""
    count, positions = scores.shape
    if count == 0 or (valid is not None and not np.any(valid)):
        raise ValueError("no memory to read")
    affinity = np.zeros((count, positions))
    for p in range(positions):
        usable = np.isfinite(scores[:, p])
        if valid is not None:
            usable &= np.asarray(valid).astype(bool)
        matches = np.flatnonzero(usable)
        matches = matches[np.argsort(-scores[matches, p], kind="stable")][:top_k]
        if matches.size:
            share = np.exp(scores[matches, p] - scores[matches[0], p])
            affinity[matches, p] = share / share.sum()
    return affinity


def topk_readout(key, query_key, value, shrinkage=None, selection=None, top_k=30, form="anisotropic_l2", valid=None):
    """Readout [O, CV, P] and usage [N] for value [O, CV, N]; top_k None is a full softmax."""
    with np.errstate(all="ignore"):
        scores = similarity(key, query_key, shrinkage, selection, form)
    affinity = weights(scores, top_k, valid)
    return np.asarray(value, np.float64) @ affinity, affinity.sum(1)
