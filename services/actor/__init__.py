"""Decides about proposals and carries the decisions out, each effect once.

Consumes: cases, proposals, dead-letters, control.
Publishes: decisions, effects, dead-letters, and on control that it switched a candidate off.
Owns: the schema `actor`: cases, proposals, decisions, approvals, the ledger of effects, holds.
"""
