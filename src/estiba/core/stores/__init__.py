"""Where things are kept: the only package that knows file systems, object storage and databases."""
