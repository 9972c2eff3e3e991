"""What the reporter does: append events, keep projections true to them, rebuild them."""
