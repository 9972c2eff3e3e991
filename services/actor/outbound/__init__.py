"""The destinations: connectors behind breaker and rate limit, and the loops that use them."""
