"""doctor: the usual faults of a containerised project, each with its evidence and what to do about it."""
