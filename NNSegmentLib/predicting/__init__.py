"""From files to a network's inputs and from its answers to files, around the engine that computes them; no torch here."""
