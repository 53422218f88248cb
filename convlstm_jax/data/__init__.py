"""Sources of clips and the input pipeline: NumPy in, NumPy out, no JAX."""
