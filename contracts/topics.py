"""The topics, in the order in which an event travels."""

CASES = "nightshift.cases"
PROPOSALS = "nightshift.proposals"
DECISIONS = "nightshift.decisions"
EFFECTS = "nightshift.effects"
DEAD_LETTERS = "nightshift.dead-letters"
CONTROL = "nightshift.control"

ALL = (CASES, PROPOSALS, DECISIONS, EFFECTS, DEAD_LETTERS, CONTROL)

EPOCH = "nightshift.epoch"
"""One partition; its first record names the life of this broker (services/runtime/epoch.py)."""
