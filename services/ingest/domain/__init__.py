"""Deliveries, pure."""
