"""What the panel is made of: a context that all sections share, and one file per section."""
