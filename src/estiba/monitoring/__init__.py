"""Measure whether a model that serves is still asked what it was trained for: drift."""
