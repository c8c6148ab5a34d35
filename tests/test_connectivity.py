"""Rules that draw synapses, and the weights that go with them."""

import numpy as np
import pytest
from scipy import io, sparse
from small import config

from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.connectivity.mask import Mask, joined, neighbours, of_matrix, of_pairs
from eprop_cli.connectivity.rule import ConnectionRule, RuleConfig, make_rule
from eprop_cli.errors import ConfigError
from eprop_cli.training.base import initial_network

HALF = "{rule: bernoulli, p: 0.5}"


def draw(value, n_pre=40, n_post=40, projection="rec_rec", seed=0):
    return make_rule(projection, value).draw(np.random.RandomState(seed), n_pre, n_post)


def network(*overrides, seed=1):
    return initial_network(config("training=data_parallel", *overrides), np.random.RandomState(seed))


def assert_well_formed(mask):
    row, post = mask.lists
    assert row[0] == 0
    assert row[-1] == len(post) == mask.size
    for i in range(mask.n_pre):
        assert (np.diff(post[row[i] : row[i + 1]].astype(int)) > 0).all()
    np.testing.assert_array_equal(mask.exists().sum(axis=1), mask.fan_in())
    np.testing.assert_array_equal(mask.exists().sum(axis=0), mask.fan_out())


# Rules


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 1.0])
def test_bernoulli_has_the_density_it_is_given(p):
    mask = draw({"rule": "bernoulli", "p": p}, 300, 300)
    assert_well_formed(mask)
    assert not np.diag(mask.exists()).any()
    assert abs(mask.size - p * 300 * 299) <= 5 * np.sqrt(300 * 299 * p * (1 - p))
    autapses = draw({"rule": "bernoulli", "p": p, "allow_autapses": True}, 300, 300)
    assert np.diag(autapses.exists()).sum() == pytest.approx(300 * p, abs=5 * np.sqrt(300 * p * (1 - p)))


def test_bernoulli_takes_every_place_equally_often():
    found = sum(draw({"rule": "bernoulli", "p": 0.2}, 6, 5, "in_rec", seed).exists().astype(int) for seed in range(500))
    assert np.abs(found - 100).max() < 5 * np.sqrt(500 * 0.2 * 0.8)


@pytest.mark.parametrize("n", [1, 7, 20, 35, 39])
def test_degrees_are_exact(n):
    inward = draw({"rule": "fixed_indegree", "indegree": n})
    outward = draw({"rule": "fixed_outdegree", "outdegree": n})
    for mask, degrees in ((inward, inward.fan_in()), (outward, outward.fan_out())):
        assert_well_formed(mask)
        assert (degrees == n).all()
        assert not np.diag(mask.exists()).any()
    assert (draw({"rule": "fixed_indegree", "indegree": 40, "allow_autapses": True}).fan_in() == 40).all()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_degrees_take_every_neuron_equally_often(n):
    rule = {"rule": "fixed_indegree", "indegree": n}
    found = sum(draw(rule, 6, 6, seed=seed).exists().astype(int) for seed in range(500))
    expected = 500 * n / 5
    away = np.abs(found - expected)[~np.eye(6, dtype=bool)]
    assert away.max() < 5 * np.sqrt(expected * (1 - n / 5)) + 1


def test_a_feed_forward_network_has_no_recurrent_synapses():
    wiring, weights = network("connectivity.rec_rec=none")
    assert wiring["rec_rec"].size == 0
    assert weights["rec_rec"].shape == (0,)
    assert wiring["in_rec"].size == 40 * 100


def test_masks_are_those_of_nests_script_on_neuromorphic_mnist():
    rng = np.random.RandomState(3)
    expected = {
        "in_rec": np.float32(rng.randn(40, 100).T / np.sqrt(40)),
        "rec_rec": np.float32(rng.randn(100, 100).T / np.sqrt(100)),
        "rec_out": np.float32(rng.uniform(-np.sqrt(3 / 51), np.sqrt(3 / 51), (100, 2)).T),
    }
    feedback = np.float32(rng.randn(100, 2))
    np.fill_diagonal(expected["rec_rec"], 0.0)
    for projection, sparsity in (("in_rec", 0.75), ("rec_rec", 0.99), ("rec_out", 0.0)):
        expected[projection] *= rng.choice([0, 1], expected[projection].shape, p=[sparsity, 1 - sparsity])
    after, rng = rng.rand(), np.random.RandomState(3)
    wiring, weights = initial_network(config("connectivity=neuromorphic_mnist"), rng)
    for projection in PLASTIC:
        np.testing.assert_array_equal(wiring[projection].matrix(weights[projection]), expected[projection])
        assert wiring[projection].size == np.count_nonzero(expected[projection])
    np.testing.assert_array_equal(weights[FEEDBACK], feedback)
    assert rng.rand() == after


@pytest.mark.parametrize("kind", ["mtx", "npy", "npz", "scipy.npz"])
def test_a_mask_from_a_file(tmp_path, kind):
    matrix = np.random.RandomState(0).rand(40, 40) * (np.random.RandomState(1).rand(40, 40) < 0.2)
    np.fill_diagonal(matrix, 0.0)
    path = tmp_path / f"mask.{kind}"
    if kind == "mtx":
        io.mmwrite(path, sparse.coo_array(matrix))
    elif kind == "npy":
        np.save(path, matrix)
    elif kind == "npz":
        np.savez(path, mask=matrix)
    else:
        sparse.save_npz(path, sparse.csr_array(matrix))
    mask = draw({"rule": "file", "path": str(path)})
    assert_well_formed(mask)
    np.testing.assert_array_equal(mask.exists(), matrix != 0)


def test_files_that_are_no_masks_are_refused(tmp_path):
    for name, content in (("eye.npy", np.eye(40)), ("small.npy", np.ones((3, 40))), ("text.npy", np.array(["a"]))):
        np.save(tmp_path / name, content)
    (tmp_path / "bad.mtx").write_text("no matrix")
    for name, message in (
        ("eye.npy", "has 40 autapses; take them out"),
        ("small.npy", r"has a matrix of shape \(3, 40\), but must have \(40, 40\)"),
        ("text.npy", "must be a readable matrix"),
        ("bad.mtx", "must be a readable matrix"),
        ("none.npz", "does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            draw({"rule": "file", "path": str(tmp_path / name)})
    assert draw({"rule": "file", "path": str(tmp_path / "eye.npy"), "allow_autapses": True}).size == 40


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "connectivity.rec_rec=null: must be the name of a rule, or its keys"),
        (3, "connectivity.rec_rec=3: must be the name of a rule"),
        ("nosuch", "connectivity.rec_rec=nosuch: must be one of dense, none, bernoulli"),
        ("{rule: [}", "must be the keys of a rule"),
        ("bernoulli", "connectivity.rec_rec=bernoulli: needs p, as in {rule: bernoulli, p: ...}"),
        ({"p": 0.1}, "must be the name of a rule, or its keys"),
        ({"rule": "bernoulli", "p": 1.5}, "connectivity.rec_rec.p=1.5: must be a probability"),
        ({"rule": "bernoulli", "p": "a"}, "connectivity.rec_rec.p=a: must be a number"),
        ({"rule": "bernoulli", "q": 1}, "connectivity.rec_rec.q=1: is no key of rule bernoulli, which has rule"),
        ({"rule": "fixed_indegree", "indegree": 0.5}, "connectivity.rec_rec.indegree=0.5: must be a whole number"),
        ({"rule": "fixed_indegree", "indegree": 100}, "connectivity.rec_rec.indegree=100: must be at most 99"),
        ({"rule": "fixed_outdegree", "outdegree": 100}, "connectivity.rec_rec.outdegree=100: must be at most 99"),
        ({"rule": "dense", "allow_multapses": True}, "connectivity.rec_rec.allow_multapses=true: must be false"),
        ("from_weights", "connectivity.rec_rec=from_weights: needs synapse.weights_from"),
        ("json:loads", "connectivity.rec_rec=json:loads: must be one of"),
    ],
)
def test_rules_that_are_none_are_refused(value, message):
    def use():
        make_rule("rec_rec", value).check(100, 100)
        network(f"connectivity.rec_rec={value}")

    with pytest.raises(ConfigError) as error:
        use()
    assert message in str(error.value)


class Ring(ConnectionRule):
    """A rule of a user's own."""

    def draw(self, rng, n_pre, n_post):
        pre = np.arange(n_pre)
        return of_pairs(pre, (pre + 1) % n_post, n_pre, n_post)


class Wrong(Ring):
    def draw(self, rng, n_pre, n_post):
        return np.ones((n_pre, n_post))


def test_a_rule_of_ones_own():
    wiring, _ = network("connectivity.rec_rec='test_connectivity:Ring'")
    np.testing.assert_array_equal(wiring["rec_rec"].exists(), np.roll(np.eye(100), 1, axis=0))
    with pytest.raises(ConfigError, match="its rule must draw a Mask of 100 to 100 neurons"):
        network("connectivity.rec_rec='test_connectivity:Wrong'")


def test_a_rule_has_a_config():
    assert issubclass(make_rule("rec_rec", "dense").Config, RuleConfig)


# Weights


def test_weights_scale_with_the_fan_in_that_each_neuron_has():
    wiring, weights = network("connectivity.rec_rec={rule: bernoulli, p: 0.2}", "neuron.n_reg=1000")
    fan_in = wiring["rec_rec"].fan_in()
    scaled = weights["rec_rec"] * np.sqrt(fan_in)[wiring["rec_rec"].post]
    assert scaled.std() == pytest.approx(1.0, abs=0.01)
    _, weights = network("connectivity.rec_out={rule: fixed_outdegree, outdegree: 1}", "neuron.n_reg=1000")
    limit = np.sqrt(3.0 / ((1050 / 2 + 1) / 2))  # about half of the neurons onto either readout
    assert np.abs(weights["rec_out"]).max() == pytest.approx(limit, rel=0.05)


def test_a_projections_synapses_do_not_depend_on_the_others():
    one, _ = network(f"connectivity.rec_rec={HALF}")
    other, _ = network(f"connectivity.rec_rec={HALF}", "connectivity.in_rec={rule: bernoulli, p: 0.1}")
    assert one["rec_rec"].same_as(other["rec_rec"])
    assert not one["rec_rec"].same_as(network(f"connectivity.rec_rec={HALF}", "seed=2")[0]["rec_rec"])


def test_dense_draws_are_those_without_rules():
    wiring, weights = network()
    rng = np.random.RandomState(1)
    np.testing.assert_array_equal(weights["in_rec"], np.float32(rng.randn(40, 100).T / np.sqrt(40)))
    assert all(mask.is_dense for mask in wiring.values())


def saved(path, wiring=None, ours=True, **values):
    """weights.npz of a network that has been trained."""
    arrays = {f"{name}_after": values[name] for name in PLASTIC} | {FEEDBACK: values[FEEDBACK]}
    for name, mask in (wiring or {}).items():
        if not mask.is_dense:
            shape = mask.n_post, mask.n_pre
            arrays |= {f"{name}_row": mask.row, f"{name}_post": mask.post, f"{name}_shape": shape}
    np.savez(path, **arrays, **({"format": 2} if ours else {}))
    return f"synapse.weights_from={path}"


def test_sparse_weights_bring_their_synapses(tmp_path):
    wiring, weights = network(f"connectivity.rec_rec={HALF}")
    source = saved(tmp_path / "w.npz", wiring, **weights)
    for rule in (HALF, "from_weights"):
        found, taken = network(f"connectivity.rec_rec={rule}", source, "seed=1" if rule == HALF else "seed=2")
        assert found["rec_rec"].same_as(wiring["rec_rec"])
        np.testing.assert_equal(taken, weights)
    for overrides in ((f"connectivity.rec_rec={HALF}", "seed=2"), ()):
        with pytest.raises(ConfigError, match=r"has other synapses .* connectivity\.rec_rec=from_weights takes"):
            network(source, *overrides)


def test_zeros_are_no_synapses_unless_asked_for(tmp_path):
    _, weights = network()
    weights["rec_rec"][np.random.RandomState(0).rand(100, 100) < 0.9] = 0.0
    source = saved(tmp_path / "w.npz", ours=False, **weights)
    with pytest.raises(ConfigError, match=r"zeros in rec_rec, which would become synapses; connectivity\.rec_rec=from"):
        network(source)
    wiring, taken = network(source, "connectivity.rec_rec=from_weights")
    assert wiring["rec_rec"].size == np.count_nonzero(weights["rec_rec"])
    np.testing.assert_array_equal(wiring["rec_rec"].matrix(taken["rec_rec"]), weights["rec_rec"])
    wiring, taken = network(source, "connectivity.rec_rec={rule: dense, keep_zeros: true}")
    assert wiring["rec_rec"].is_dense
    np.testing.assert_array_equal(taken["rec_rec"], weights["rec_rec"])
    wiring, taken = network(source, f"connectivity.rec_rec={HALF}")  # a mask that is asked for
    np.testing.assert_array_equal(wiring["rec_rec"].take(weights["rec_rec"]), taken["rec_rec"])


# Masks


def test_masks_survive_a_turn_and_find_their_synapses():
    matrix = np.random.RandomState(2).rand(30, 20) < 0.3
    mask = of_matrix(matrix)
    assert_well_formed(mask)
    turned, order = mask.transposed()
    assert_well_formed(turned)
    np.testing.assert_array_equal(turned.exists(), matrix.T)
    values = np.arange(mask.size, dtype=float)
    np.testing.assert_array_equal(turned.matrix(values[order]), mask.matrix(values).T)
    pre, post = mask.pre, mask.lists[1]
    np.testing.assert_array_equal(mask.find(pre[::-1], post[::-1]), values[::-1])
    absent = np.argwhere(~matrix)[0]
    with pytest.raises(LookupError):
        mask.find(absent[1:], absent[:1])
    np.testing.assert_array_equal(mask.sparse(values).toarray(), mask.matrix(values))
    pre, post = mask.corner(5, 7)
    np.testing.assert_array_equal(np.stack([post, pre]), np.nonzero(matrix[:7, :5]))


def test_a_dense_projection_may_lack_autapses():
    mask = Mask(4, 4, autapses=False)
    assert mask.size == 12
    assert mask.listed().size == 12
    np.testing.assert_array_equal(mask.fan_in(), [3, 3, 3, 3])
    assert mask.same_as(mask.listed())


def test_neighbours_are_joined_without_a_copy():
    values = neighbours({"in_rec": np.arange(3.0), "rec_rec": np.arange(4.0)})
    whole = joined(values["in_rec"], values["rec_rec"])
    assert np.shares_memory(whole, values["rec_rec"])
    np.testing.assert_array_equal(whole, [0, 1, 2, 0, 1, 2, 3])
    np.testing.assert_array_equal(joined(values["rec_rec"], values["in_rec"]), [0, 1, 2, 3, 0, 1, 2])
