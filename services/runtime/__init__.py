"""What every service needs.

Delivery, tasks, outbox, Postgres, Kafka, switches, telemetry, health. No word of any process.
"""
