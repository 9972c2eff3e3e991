"""One file per message and per piece of work."""
