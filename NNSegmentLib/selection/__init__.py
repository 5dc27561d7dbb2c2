"""Which configurations, alone or together, and which post-processing are best in cross-validation."""
