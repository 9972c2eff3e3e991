"""What is done about one delivery, and about one order to redrive."""
