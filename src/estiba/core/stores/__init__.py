"""Stores of files. No other package knows about file systems, object storage and databases."""
