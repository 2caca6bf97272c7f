"""The registry: versions and aliases, in a folder or in object storage."""
