"""How each kind of outside system is spoken to: verify, receive, list, read, look up, send, read back."""
