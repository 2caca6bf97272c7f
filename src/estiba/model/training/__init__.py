"""Train in a process of its own, and only when something changed."""
