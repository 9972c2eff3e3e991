"""Pure: when an effect may go, what becomes of an attempt, how fast a destination is used."""
