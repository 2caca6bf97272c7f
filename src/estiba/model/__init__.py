"""Pack, keep, load and train models."""
