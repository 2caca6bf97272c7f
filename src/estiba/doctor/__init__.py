"""Examine a containerized project, or running containers, and report the usual faults."""
