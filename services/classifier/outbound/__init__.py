"""Providers, embeddings, and a process's knowledge on disk."""
