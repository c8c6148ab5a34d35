"""Where a run tells of itself besides its directory."""
