"""Fitted estimators: saved files, the libraries they need, what they answer."""
