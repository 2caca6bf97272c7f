"""Artifacts on disk: manifest, archive, model card and golden rows."""
