"""What travels between the services: envelope, topics, events, and the small types that rules and connectors share."""
