"""Segments that are to become labels: their names, how they look, where they overlap, and the files they are written to."""
