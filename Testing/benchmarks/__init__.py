"""How fast and how small: `make bench`, one file per stage.

Functions named `child_…` run in a process of their own, so that time and peak memory are theirs alone; those in
`peer_steps.py` run in nnU-Net's Python. Everything else here imports the standard library only: on Linux a new
process inherits the peak memory of the one that started it.
"""
