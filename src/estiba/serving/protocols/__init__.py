"""Decode, answer and encode predictions in each of the supported protocols."""
