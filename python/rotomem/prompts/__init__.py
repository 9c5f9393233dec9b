"""Clicks, scribbles and boxes become key masks."""
