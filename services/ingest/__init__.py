"""Intake: outside news becomes facts, each once.

Consumes: webhooks, `POST /webhooks/{process}/{source}`; the provider's own list of what happened;
`redrive.requested.v1` from `nightshift.control`.
Publishes: `case.opened.v1`, `case.changed.v1`, `intake.reconciled.v1`; dead letters for deliveries that were signed and
cannot be understood.
Owns: schema `ingest`: deliveries as they were signed (sealed), the keys of what was seen, tallies, what is known of
each hour; it makes case keys.
"""
