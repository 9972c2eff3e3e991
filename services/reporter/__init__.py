"""Reporter: keeps every event for ever, says what they mean, and shows it to people.

Consumes every topic. Publishes nothing of its own; it relays what people order (schema control).
Owns the schema reporter: the event log, the projections made from it, and the console.
"""
