"""Zendesk: webhooks in, tickets read and listed, one PUT a decision out, and read back by its audit."""

from connectors.zendesk.client import Zendesk

__all__ = ["Zendesk"]
