"""What is measured, beside what else a user could have picked."""
