"""Clips that the program generates itself, one module for each data set."""
