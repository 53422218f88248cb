"""State, steps, the loop, checkpoints and logs."""
