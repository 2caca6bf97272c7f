"""The protocols of predictions: decode a body, ask the model, encode the answer."""
