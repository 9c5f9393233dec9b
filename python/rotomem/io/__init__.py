"""Files in and out: plates, colour, key masks, mattes."""
