"""Splines: closed Bezier curves as key masks and as editable output; text in, text out, NumPy only."""
