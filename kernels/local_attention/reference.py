"""What local_attention means, in float64 NumPy, written to be read. Every backend is held to it."""

from __future__ import annotations

import numpy as np


def local_attention(query, key, value, relative_key, relative_bias, relative_value):
    """Readout [C, Y, X] of maps [C, Y, X]; relative_key [heads, side**2, C/heads], relative_bias [heads, side**2],
    relative_value [heads, C/heads, side**2]."""
    query, key, value = (np.asarray(a, np.float64) for a in (query, key, value))
    _, rows, columns = query.shape
    heads, places, depth = np.shape(relative_key)
    side = int(np.sqrt(places))
    reach = side // 2
    out = np.zeros_like(query)
    for h in range(heads):
        own = slice(h * depth, (h + 1) * depth)
        embedding = np.asarray(relative_key[h], np.float64)
        bias = np.asarray(relative_bias[h], np.float64)
        moved = np.asarray(relative_value[h], np.float64)
        for y in range(rows):
            for x in range(columns):
                q = query[own, y, x]
                scores, values = [], []
                for dy in range(max(-reach, -y), min(reach, rows - 1 - y) + 1):
                    for dx in range(max(-reach, -x), min(reach, columns - 1 - x) + 1):
                        place = (dy + reach) * side + dx + reach
                        score = q @ key[own, y + dy, x + dx] / np.sqrt(depth) + q @ embedding[place] + bias[place]
                        if np.isfinite(score):
                            scores.append(score)
                            values.append(value[own, y + dy, x + dx] + moved[:, place])
                if scores:
                    weights = np.exp(np.array(scores) - max(scores))
                    out[own, y, x] = weights / weights.sum() @ np.array(values)
    return out
