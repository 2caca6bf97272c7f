"""Deploy a project with images, Docker Compose and Kubernetes."""
