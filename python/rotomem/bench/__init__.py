"""Timings: reading the memory, consolidating it, attention, whole shots; against peers, in one process.

Ratios travel between machines, seconds do not: every case times our kernels, the published formula in plain torch and
what else does the same work, in turn, on the same numbers.
"""
