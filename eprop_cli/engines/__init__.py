"""Compute losses and gradients of a batch: one folder per engine."""
