"""Artifacts, which are packed models in directories named by their digest."""
