"""Signatures: the fields of a model, inferred, read and checked."""
