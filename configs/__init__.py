"""Experiments, one file each: `base.py` holds every field, the others override it."""
