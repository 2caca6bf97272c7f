"""Write rendered files: YAML, CI pipelines, and the folders that they go to."""
