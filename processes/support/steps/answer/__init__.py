"""One step: read the customer's words and suggest an answer."""
