"""The synapses that synapse.weights_from has: those it lists, or of a matrix those that are not 0."""

from eprop_cli.connectivity.rule import FROM_WEIGHTS, ConnectionRule


class FromWeights(ConnectionRule):
    """connectivity.PROJECTION=from_weights."""

    when = FROM_WEIGHTS
