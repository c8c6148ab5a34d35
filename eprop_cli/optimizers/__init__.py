"""Turn gradients into new weights."""
