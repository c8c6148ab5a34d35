"""Find keys: by a word of their names, meanings or units, by other names that the field has for them, by a slip."""

import difflib

from eprop_cli.config.files import Key, all_keys, conf_dir, read_keys

# What papers and libraries call them, and the keys that are meant
OTHER_NAMES = {
    ("lr", "learning_rate", "alpha"): ["optimizer.eta"],
    ("batch_size", "batch", "batchsize", "n_sequences"): ["task.n_batch"],
    ("epochs", "n_epochs", "iterations", "n_iterations", "n_steps", "num_iterations"): ["task.n_iter"],
    ("tau_adapt", "tau_a", "tau_adaptation"): ["neuron.ad.adapt_tau"],
    ("beta", "beta_adapt", "adapt_beta"): ["neuron.ad.adapt_beta_scale"],
    ("threshold", "v_th", "vth", "thr", "v_threshold", "v_thresh"): ["neuron.rec.V_th"],
    ("tau", "tau_mem", "tau_v", "tau_membrane"): ["neuron.rec.tau_m"],
    ("tau_out", "kappa"): ["neuron.out.tau_m"],
    ("refractory", "t_refractory", "tau_ref", "n_refractory"): ["neuron.rec.t_ref"],
    ("n_rec", "hidden", "hidden_size", "n_hidden", "n_neurons", "units"): ["neuron.n_reg", "neuron.n_ad"],
    ("dampening", "dampening_factor", "surrogate_scale"): ["neuron.rec.gamma"],
    ("surrogate", "pseudo_derivative", "surrogate_function"): ["neuron.rec.surrogate_gradient_function"],
    ("target_rate", "firing_rate", "f0", "rate"): ["neuron.rec.f_target"],
    ("reg", "rate_cost", "reg_f", "regularization", "regularisation"): ["neuron.rec.c_reg"],
    ("dt", "time_step", "timestep"): ["kernel.resolution"],
    ("clip", "gradient_clip", "grad_clip", "max_norm"): ["optimizer.clip_norm"],
    ("l2", "decay"): ["optimizer.weight_decay"],
    ("scheduler", "lr_schedule"): ["optimizer.schedule.name"],
    ("early_stopping", "patience"): ["training.do_early_stopping"],
    ("workers", "num_workers", "n_jobs", "processes"): ["engine.n_workers"],
    ("threads", "num_threads", "n_threads"): ["engine.local_num_threads"],
    ("random_seed", "rng_seed", "seeds"): ["seed"],
    ("loss", "cost", "criterion"): ["neuron.out.loss"],
    ("init", "weight_init", "initializer"): ["synapse.weight_distribution"],
}
ALIKE = 0.75  # of a misspelt name; less, and it would be a key of other physics: tau_adapt is not tau_m
CHOSEN = ("hydra.launcher.", "hydra.sweeper.")  # groups whose keys are those of the file chosen
MAX_MEANING = 70  # characters of it in a suggestion


def found(word: str) -> dict[str, Key]:
    """The keys with a word in their names, meanings or units, or that others call so."""
    keys, word = all_keys(), word.lower()
    other = {key for names, targets in OTHER_NAMES.items() if any(word in name for name in names) for key in targets}
    return {
        key: each
        for key, each in keys.items()
        if word in key.lower() or word in each.meaning.lower() or key in other or key.startswith(_below(other))
    }


def unknown(key: str) -> str:
    """What there is to say of a key that a config does not have."""
    if key.startswith(CHOSEN):
        part = ".".join(key.split(".")[:2])
        group = part.replace(".", "/")
        return f"is no key of the {group} chosen; the keys of one: eprop-run {group}=NAME --cfg hydra -p {part}"
    if key.startswith("hydra."):
        return "there is no such key; Hydra's keys: eprop-run --cfg hydra"
    keys = all_keys()
    if files := _files_with(key):
        return f"is a key of {', '.join(files)}, not of the file chosen"
    nearest = _nearest(key, keys)
    if not nearest:
        return "there is no such key; search them: eprop-run --keys WORD"
    meanings = {each: _short(keys[each].meaning) for each in nearest if each in keys}
    told = [f"{each} ({meanings[each]})" if meanings.get(each) else each for each in nearest]
    return f"there is no such key; closest: {', '.join(told)}"


def _nearest(key: str, keys: dict[str, Key]) -> list[str]:
    place, _, last = key.rpartition(".")
    groups = {".".join(each.split(".")[:depth]): None for each in keys for depth in range(1, each.count(".") + 1)}
    known = [*keys, *groups]
    targets = [each for names, own in OTHER_NAMES.items() if last.lower() in names for each in own if each in known]
    if targets and place:  # of the population that was meant
        here = [f"{place}.{each.rpartition('.')[2]}" for each in targets]
        return [each for each in here if each in known] or targets
    if targets:
        return targets
    alike = [each for each in known if _likeness(last, each.rpartition(".")[2]) >= ALIKE]
    return difflib.get_close_matches(key, alike, n=1, cutoff=0.6)


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()


def _files_with(key: str) -> list[str]:
    """The files, as GROUP=NAME, that have a key."""
    group, _, name = key.partition(".")
    paths = sorted((conf_dir() / group).glob("*.yaml")) if name else []
    return [f"{group}={path.stem}" for path in paths if name in read_keys(path)]


def _short(meaning: str) -> str:
    first = meaning.split(";")[0]
    return first if len(first) <= MAX_MEANING else f"{first[:MAX_MEANING].rsplit(' ', 1)[0]} ..."


def _below(keys: set[str]) -> tuple[str, ...]:
    return tuple(f"{key}." for key in keys)
