"""From a network's raster to a matte at plate resolution: edges, steadiness, colour. Knows no session."""
