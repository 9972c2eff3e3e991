"""A process for tests: comments are asked, answers are sent."""
