"""What each group has to choose from: a line per variant, and a user's own as module:Class."""

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from eprop_cli.errors import ConfigError

# group -> name -> where its class is. Named rather than imported: what is not chosen is not loaded.
VARIANTS: dict[str, dict[str, str]] = {
    "task": {
        "evidence_accumulation": "eprop_cli.tasks.evidence_accumulation:EvidenceAccumulation",
        "sine_waves": "eprop_cli.tasks.sine_waves:SineWaves",
        "lemniscate": "eprop_cli.tasks.lemniscate:Lemniscate",
        "handwriting": "eprop_cli.tasks.handwriting:Handwriting",
        "digits": "eprop_cli.tasks.digits:DigitsTask",
        "shd": "eprop_cli.tasks.shd:Shd",
        "neuromorphic_mnist": "eprop_cli.tasks.neuromorphic_mnist:NeuromorphicMnistTask",
    },
    "loss": {
        "cross_entropy": "eprop_cli.losses:CrossEntropy",
        "mean_squared_error": "eprop_cli.losses:MeanSquaredError",
    },
    "neuron": {
        "bsshslm_2020": "eprop_cli.models.bsshslm_2020:Bsshslm2020",
        "eprop_iaf": "eprop_cli.models.eprop_iaf:EpropIaf",
        "eprop_iaf_adapt": "eprop_cli.models.eprop_iaf:EpropIafAdapt",
        "eprop_iaf_psc_delta": "eprop_cli.models.eprop_iaf:EpropIafPscDelta",
        "eprop_iaf_psc_delta_adapt": "eprop_cli.models.eprop_iaf:EpropIafPscDeltaAdapt",
    },
    "synapse": {
        "bsshslm_2020": "eprop_cli.models.bsshslm_2020:Bsshslm2020Synapses",
        "eprop_synapse": "eprop_cli.models.eprop_iaf:EpropSynapses",
    },
    "connectivity": {
        "dense": "eprop_cli.connectivity.dense:Dense",
        "none": "eprop_cli.connectivity.none:NoSynapses",
        "bernoulli": "eprop_cli.connectivity.bernoulli:Bernoulli",
        "fixed_indegree": "eprop_cli.connectivity.fixed_indegree:FixedIndegree",
        "fixed_outdegree": "eprop_cli.connectivity.fixed_outdegree:FixedOutdegree",
        "file": "eprop_cli.connectivity.file:File",
        "choice": "eprop_cli.connectivity.choice:Choice",
        "from_weights": "eprop_cli.connectivity.from_weights:FromWeights",
    },
    "optimizer": {
        "gradient_descent": "eprop_cli.optimizers.gradient_descent:GradientDescent",
        "adam": "eprop_cli.optimizers.adam:Adam",
    },
    "engine": {
        "nest": "eprop_cli.engines.nest.engine:NestEngine",
        "compiled": "eprop_cli.engines.compiled.engine:CompiledEngine",
        "cuda": "eprop_cli.engines.cuda.engine:CudaEngine",
    },
    "training": {
        "continuous": "eprop_cli.training.continuous:Continuous",
        "data_parallel": "eprop_cli.training.data_parallel:DataParallel",
    },
    "figure": {
        "learning": "eprop_cli.figures.learning:Learning",
        "confusion": "eprop_cli.figures.confusion:Confusion",
        "tracking": "eprop_cli.figures.tracking:Tracking",
        "dynamics": "eprop_cli.figures.dynamics:Dynamics",
        "weight_time_courses": "eprop_cli.figures.weights:WeightTimeCourses",
        "weight_matrices": "eprop_cli.figures.weights:WeightMatrices",
        "weight_changes": "eprop_cli.figures.weights:WeightDifferences",
        "firing_rates": "eprop_cli.figures.firing_rates:FiringRates",
    },
}
# engines between which a run can change; that is known of them without loading what may not be installed
SAME_RESULTS = (frozenset({"compiled", "cuda"}),)
# group -> the class that its variants descend from, by which a user's own gets what it does not say itself
BASES = {
    "task": "eprop_cli.tasks.base:Task",
    "loss": "eprop_cli.losses:Loss",
    "neuron": "eprop_cli.models.base:Model",
    "synapse": "eprop_cli.models.base:SynapseModel",
    "connectivity": "eprop_cli.connectivity.rule:ConnectionRule",
    "optimizer": "eprop_cli.optimizers.base:Optimizer",
    "engine": "eprop_cli.engines.base:Engine",
    "training": "eprop_cli.training.base:Trainer",
    "figure": "eprop_cli.figures.base:Drawing",
}
# of groups that are not chosen by their name
KEYS = {"loss": "neuron.out.loss", "figure": "plots.figures", "connectivity": "connectivity.PROJECTION"}


def variant(group: str, name: str) -> type[Any]:
    """The class that a name means in a group: one of VARIANTS, or module:Class, found from the working directory.

    Raises ConfigError if there is none, or if a user's own is not what the group needs.
    """
    if name in VARIANTS[group]:
        known: type[Any] = _load(VARIANTS[group][name])
        return known
    key = KEYS.get(group, f"{group}.name")
    base, found = _load(BASES[group]), _own(key, name)
    config = getattr(base, "Config", None)
    fits = isinstance(found, type) and (config is None or issubclass(getattr(found, "Config", object), config))
    if not fits:
        choices = ", ".join(VARIANTS[group])
        needs = "" if config is None else f" with a Config that extends {config.__module__}:{config.__name__}"
        raise ConfigError(key, name, f"must be one of {choices}, or module:Class{needs} (docs/extending.md)")
    assert isinstance(found, type)
    return found if issubclass(found, base) else type(found.__name__, (found, base), {"__module__": found.__module__})


def fits(group: str, name: str, names: Iterable[str]) -> bool:
    """Whether a name is one of some, or that of a user's class that descends from one of theirs."""
    names = tuple(names)
    return name in names or issubclass(variant(group, name), tuple(variant(group, each) for each in names))


def is_known(group: str, name: str) -> bool:
    """Whether a name is one of ours, rather than a user's module:Class."""
    return name in VARIANTS[group]


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _own(key: str, name: str) -> Any:
    """What module:Class of a user's means; None if it is no such name."""
    module, _, attribute = name.partition(":")
    if not attribute:
        return None
    if "" not in sys.path:
        sys.path.append("")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a module of the user's may do
        expected = isinstance(error, ImportError | AttributeError)
        why = " ".join((str(error) if expected else f"{type(error).__name__}: {error}").split())
        raise ConfigError(key, name, f"cannot be imported ({why})") from error
