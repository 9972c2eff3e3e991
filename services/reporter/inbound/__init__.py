"""What reaches the reporter: records of every topic, and people's browsers."""
