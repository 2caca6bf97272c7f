"""Worker processes and their supervisor: accept, hand over, watch, replace, swap versions."""
