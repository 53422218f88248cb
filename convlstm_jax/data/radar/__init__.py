"""Radar composites: their files, events, and the clips cut out of them."""
