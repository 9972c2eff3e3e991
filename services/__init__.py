"""The four services and the runtime that they share."""
