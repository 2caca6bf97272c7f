"""Pack a fitted model: signature, conversion, proof, artifact."""
