"""What AMCT's command line reads data with."""
