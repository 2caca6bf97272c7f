"""Render a plan as Kubernetes manifests, and deploy them."""
