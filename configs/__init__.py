"""Experiments, one file each: the sections of a config, and presets that change them."""
