"""Ship: the same project as processes, images, Compose and Kubernetes."""
