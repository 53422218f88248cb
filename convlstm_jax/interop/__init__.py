"""Weights in from other frameworks."""
