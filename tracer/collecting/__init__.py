"""Many sessions become a profile."""
