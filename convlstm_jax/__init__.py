"""Convolutional LSTMs for video prediction and nowcasting, in JAX and Flax."""

__version__ = "0.1.0"
