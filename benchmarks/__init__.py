"""Scripts that measure this project, and peers doing the same work."""
