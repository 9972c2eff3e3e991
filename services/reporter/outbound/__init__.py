"""The reporter's tables, written and read."""
