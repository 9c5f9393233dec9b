"""One loop per model and stage, readable top to bottom."""
