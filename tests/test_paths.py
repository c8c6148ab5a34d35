import pytest
from small import compose

from eprop_cli.sweeps.paths import PATH_KEY, absolute_storage, with_absolute_paths


def test_relative_paths_begin_where_the_sweep_did(tmp_path):
    (tmp_path / "runs/a").mkdir(parents=True)
    composed = compose("synapse.weights_from=runs/a")
    assert with_absolute_paths(composed, str(tmp_path)).synapse.weights_from == str(tmp_path / "runs/a")
    assert composed.synapse.weights_from == "runs/a"
    assert with_absolute_paths(composed, None).synapse.weights_from == "runs/a"


@pytest.mark.parametrize("value", ["/runs/a", "null", "no/such/file"])
def test_others_stay(value):
    composed = compose(f"synapse.weights_from={value}")
    assert with_absolute_paths(composed, "/begun") == composed


@pytest.mark.parametrize(
    ("key", "names_a_path"),
    [
        ("task.data", True),
        ("task.train_file", True),
        ("task.inputs.path", True),
        ("task.profile", False),
        ("task.name", False),
        ("seed", False),
    ],
)
def test_keys_that_name_a_path(key, names_a_path):
    assert bool(PATH_KEY.fullmatch(key)) is names_a_path


@pytest.mark.parametrize(
    ("url", "beginning", "expected"),
    [
        ("sqlite:///x.db", "/begun", "sqlite:////begun/x.db"),
        ("sqlite:////there/x.db", "/begun", "sqlite:////there/x.db"),
        ("sqlite:///x.db", None, "sqlite:///x.db"),
        ("mysql://host/x", "/begun", "mysql://host/x"),
        (None, "/begun", None),
    ],
)
def test_a_study_is_stored_where_the_sweep_began(url, beginning, expected):
    assert absolute_storage(url, beginning) == expected
