"""What events mean: pure functions of the set of a case's events."""
