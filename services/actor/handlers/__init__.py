"""What the actor does about each message and each piece of work: load, decide, record."""
