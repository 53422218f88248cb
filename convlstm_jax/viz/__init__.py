"""Pictures, animations, curves and the report, from NumPy arrays (no JAX)."""
