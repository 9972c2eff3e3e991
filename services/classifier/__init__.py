"""The classifier: reads facts and asks a model, and says what it proposes.

Consumes `nightshift.cases`, and `nightshift.control` for redrives.
Publishes `nightshift.proposals` and `nightshift.dead-letters`.
Owns the schema `classifier`: its own picture of each case, and the work of reading and proposing.
"""
