"""The typed config: schemas, checks, and loading."""
