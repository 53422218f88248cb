"""Import of weights from other frameworks, and export of models."""
