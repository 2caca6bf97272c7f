"""Pack: what exactly is this model? A versioned, digest-named artifact with a signature and proof."""
