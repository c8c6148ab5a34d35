"""The styles that figures come in, by name; figures/style.py says what they are.

A file of its own, as eprop-plot's --help is not kept waiting for what checks a config.
"""

STYLES = ("default", "paper", "talk", "matplotlibrc")
