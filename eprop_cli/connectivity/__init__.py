"""Which neurons are connected, and with what weights to begin with."""
