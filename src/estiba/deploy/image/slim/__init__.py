"""Leave out of an image what a server never reads. Copied into the build stage of images: standard library only."""
