"""What topk_readout_grad means, in float64 NumPy, written to be read. Every backend is held to it."""

from __future__ import annotations

import numpy as np


def topk_readout_grad(
    key, query_key, value, grad_readout, index, weight, shrinkage=None, selection=None, form="anisotropic_l2"
):
    """Gradients of a read of key [CK, N] by query_key [CK, P], value [O, CV, N], from grad_readout [O, CV, P].

    index, weight [P, k] are what the read chose (n = -1: nothing); shrinkage [N], selection [CK, P] as in the read.
    Returns those of key, query_key, value, shrinkage and selection, in the shapes of these.
    """
    k, q, v, g = (np.asarray(a, np.float64) for a in (key, query_key, value, grad_readout))
    root = np.sqrt(k.shape[0])
    s = np.ones(k.shape[1]) if shrinkage is None else np.asarray(shrinkage, np.float64)
    e = np.ones_like(q) if selection is None else np.asarray(selection, np.float64)
    grad_k, grad_q, grad_v, grad_s, grad_e = (np.zeros_like(a) for a in (k, q, v, s, e))
    for p in range(q.shape[1]):
        chosen = index[p] >= 0
        n, w = index[p, chosen], np.asarray(weight[p, chosen], np.float64)
        grad_v[:, :, n] += w * g[:, :, p, None]
        grad_w = np.einsum("oc,ocj->j", g[:, :, p], v[:, :, n])
        mean = (w * grad_w).sum() / (w.sum() or 1)  # weights sum to 1, but for the rounding they come with
        slope = w * (grad_w - mean)  # of the similarities S[n, p]; they sum to 0
        if form == "dot":  # S = k . q / root
            grad_k[:, n] += slope * q[:, p, None] / root
            grad_q[:, p] = k[:, n] @ slope / root
            continue
        difference = k[:, n] - q[:, p, None]
        if form == "l2":  # S = (q . q - |k - q|^2) / root, of which the first part is the same for all n
            grad_k[:, n] -= 2 * slope * difference / root
            grad_q[:, p] = 2 * difference @ slope / root
        elif form == "anisotropic_l2":  # S = -s / root * sum_c e (k - q)^2
            sharp = s[n] * slope / root
            grad_k[:, n] -= 2 * sharp * e[:, p, None] * difference
            grad_q[:, p] = 2 * e[:, p] * (difference @ sharp)
            grad_s[n] -= slope / root * (e[:, p] @ difference**2)
            grad_e[:, p] = -(difference**2) @ sharp
        else:
            raise ValueError(form)
    return grad_k, grad_q, grad_v, grad_s, grad_e
