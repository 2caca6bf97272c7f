"""The signature of a model, inferred from a sample, and checks of single values."""
