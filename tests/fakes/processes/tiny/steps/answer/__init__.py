"""The only step: a prompt that no test asks."""
