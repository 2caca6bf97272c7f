"""Rows to coded matrices and back: records, columns, Arrow, predictions, and the compiled kernel."""
