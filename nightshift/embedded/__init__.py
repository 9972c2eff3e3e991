"""Postgres and a Kafka broker out of wheels: no Docker, no Java, no root, nothing left running."""
