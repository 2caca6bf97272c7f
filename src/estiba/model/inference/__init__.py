"""Load a model with its proof, and score files with it."""
