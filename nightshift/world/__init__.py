"""The simulated outside world: help desk, chat, shop. One piece of code is the demo's Zendesk and the tests' fake."""
