"""Policies between callers and models, one file each."""
