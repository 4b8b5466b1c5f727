"""Layers written by hand, where they pay: through public calls alone."""
