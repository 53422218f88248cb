"""The metrics of a test set: measured, written as JSON and CSV, and reported."""
