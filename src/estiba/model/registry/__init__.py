"""Versions and aliases of models, in a folder or in object storage."""
