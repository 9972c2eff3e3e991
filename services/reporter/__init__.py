"""Reporter: keeps every event for ever, says what they mean, and shows it to people.

Consumes every topic. Publishes to dead-letters what the broker refuses of the orders that it relays (schema control).
Owns the schema reporter: the event log, the projections made from it, and the console.
"""
