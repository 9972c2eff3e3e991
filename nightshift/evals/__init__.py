"""Labelled cases run through a model and the rules, offline: how often it is right, and what changed."""
