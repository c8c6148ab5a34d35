"""Turn gradients into weights and rows: one file per way of training."""
