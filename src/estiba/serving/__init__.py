"""Serve: answer a prediction, fast and honestly."""
