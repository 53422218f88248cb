"""Experiments, one file each: the sections of a config, and its presets."""
