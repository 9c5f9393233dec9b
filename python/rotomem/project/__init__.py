"""A shot project: what an artist decides about a shot in one file, what was computed from it beside it."""
