"""engine=compiled."""
