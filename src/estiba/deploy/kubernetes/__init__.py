"""Kubernetes: manifests of a plan."""
