"""Linen modules around the recurrent ops."""
