"""Infer the signature of a fitted model, convert it, prove the conversion, write the artifact."""
