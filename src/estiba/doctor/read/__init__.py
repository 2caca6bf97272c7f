"""Read Dockerfiles, compose files, images and source code into the facts that rules judge."""
