"""Pure functions: gates, convolutions, one step, a whole sequence."""
