"""What AMCT logs with."""
