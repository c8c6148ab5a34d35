"""Figures, from run directories alone."""
