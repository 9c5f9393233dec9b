"""One recipe per model and stage, readable top to bottom; `train/loop.py` runs them."""
