"""Run e-prop learning experiments on the NEST simulator from the command line."""

__version__ = "0.2.0"
