"""Side-by-side measurements; see python -m benchmarks --help."""
