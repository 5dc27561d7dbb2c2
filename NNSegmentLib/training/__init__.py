"""What a training is asked to do and how far it is, before and around the engine that does it."""
