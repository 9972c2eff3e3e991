"""How news comes in: HTTP."""
