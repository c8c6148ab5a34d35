"""engine=nest."""
