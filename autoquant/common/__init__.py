"""What scripts made for AMCT import from its package of this name."""
