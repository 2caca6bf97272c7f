"""Train models in processes of their own, only when something changed."""
