"""Where deliveries go: one writer, one transaction a group."""
