"""What runs and their predictions were made of, noted beside them so that nothing stale is taken for new."""
