"""The steps of the support process, run in the order that process.toml lists."""
