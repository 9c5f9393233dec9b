"""Training: sources, generated clips, losses, schedules, checkpoints, and one readable recipe per model."""
