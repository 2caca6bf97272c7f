"""Build, verify, measure, export and push container images."""
