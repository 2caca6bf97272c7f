"""Compute the contribution of each field to a prediction, against background rows of training."""
