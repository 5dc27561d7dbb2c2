"""A package, so that the translations of the effect are looked up under a name of their own."""
