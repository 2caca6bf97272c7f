"""Saved model files, and what fitted estimators answer."""
