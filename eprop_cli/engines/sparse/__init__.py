"""e-prop on sparse synapses, with one gradient for a whole batch; batch.Simulator is the way in."""
