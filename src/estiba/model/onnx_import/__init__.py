"""ONNX files of others, wrapped so that they take coded rows."""
