"""Intake: outside news becomes facts, each once.

Consumes: webhooks, `POST /webhooks/{process}/{source}`; `redrive.requested.v1` from `nightshift.control`.
Publishes: `case.opened.v1`, `case.changed.v1`; dead letters for deliveries that were signed and cannot be understood.
Owns: schema `ingest`: deliveries as they were signed (sealed), the keys of what was seen, tallies; it makes case keys.
"""
