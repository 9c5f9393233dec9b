"""What clips are made of: backgrounds, layers, light."""
