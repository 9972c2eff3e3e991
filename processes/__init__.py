"""The automated operations, one folder each."""
