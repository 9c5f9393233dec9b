"""A shot made from numbers alone, with the true matte of everything in it, to see rotomem work without a plate."""
