import math

import numpy as np
import pytest
from small import config

from eprop_cli.engines.nest.kernel import kernel_parameters
from eprop_cli.models.base import GRADIENT, STREAM
from eprop_cli.models.bsshslm_2020 import adapt_beta


def timing(*overrides):
    return config(*overrides).timing


def population_parameters(given, population):
    return given.model.parameters(population)


def test_timing_is_the_tutorials():
    t = timing()
    assert (t.sequence, t.learning_window, t.resolution) == (2250, 150, 1.0)
    assert (t.offset_gen, t.delay_in_rec, t.delay_rec_out, t.delay_out_norm, t.extension_sim) == (1, 1, 1, 1, 1)
    assert (t.delays, t.total_offset, t.lead) == (3, 4, 5)


def test_timing_of_other_sizes():
    t = timing("task.n_cues=5", "task.steps={cue: 20, spacing: 10, bg_noise: 7, recall: 4}")
    assert t.sequence == 5 * (20 + 10) + 7 + 4 == 161
    assert t.learning_window == 4
    assert timing("task.steps.learning_window=60").learning_window == 60


def test_steps_become_milliseconds_and_back():
    t = timing("kernel.resolution=0.5")
    assert t.ms(2250) == 1125.0
    assert t.steps(1125.0) == 2250
    assert timing("kernel.resolution=0.1").steps(0.3) == 3  # 0.3 / 0.1 is a little less than 3


def test_kernel_parameters():
    given = config("kernel.resolution=0.5", "engine.local_num_threads=1", "task.steps.learning_window=60")
    assert kernel_parameters(given) == {
        "resolution": 0.5,
        "local_num_threads": 1,
        "eprop_update_interval": 1125.0,
        "eprop_learning_window": 30.0,
        "eprop_reset_neurons_on_update": True,
        "print_time": False,
        "spike_buffer_shrink_limit": 0.0,
    }


def test_parameters_of_the_regular_population():
    assert population_parameters(config(), "reg") == {
        "C_m": 1.0,
        "c_reg": 300.0,
        "E_L": 0.0,
        "f_target": 10.0,
        "flush_event_send_interval": 2250.0,  # one sequence
        "I_e": 0.0,
        "regular_spike_arrival": True,
        "surrogate_gradient_function": "piecewise_linear",
        "surrogate_gradient_height": 0.5,  # gamma / V_th
        "surrogate_gradient_width": 0.6,  # V_th
        "t_ref": 5.0,
        "tau_m": 20.0,
        "V_m": 0.0,
        "V_th": 0.6,
    }


def test_parameters_of_the_adaptive_population_are_those_and_the_adaptation():
    ad = population_parameters(config(), "ad")
    extra = {key: value for key, value in ad.items() if key not in population_parameters(config(), "reg")}
    assert extra == {"adapt_tau": 2000.0, "adaptation": 0.0, "adapt_beta": pytest.approx(0.0174241851, rel=1e-8)}


def test_parameters_of_the_readout():
    assert population_parameters(config("neuron.out.V_min=-3"), "out") == {
        "C_m": 1.0,
        "E_L": 0.0,
        "I_e": 0.0,
        "loss": "cross_entropy",
        "regular_spike_arrival": False,
        "tau_m": 20.0,
        "V_m": 0.0,
        "V_min": -3.0,
    }


def test_populations_differ_where_the_config_does():
    given = config("neuron.reg.gamma=0.6", "neuron.ad.V_th=1.2", "neuron.ad.c_reg=1", "neuron.reg.V_min=-5")
    reg, ad = population_parameters(given, "reg"), population_parameters(given, "ad")
    assert (reg["surrogate_gradient_height"], reg["surrogate_gradient_width"]) == (1.0, 0.6)
    assert (ad["surrogate_gradient_height"], ad["surrogate_gradient_width"]) == (0.25, 1.2)
    assert (reg["c_reg"], ad["c_reg"]) == (300.0, 150.0)
    assert reg["V_min"] == -5.0
    assert "V_min" not in ad
    flushed = population_parameters(config("neuron.rec.flush_event_send_interval=4500"), "ad")
    assert flushed["flush_event_send_interval"] == 4500.0


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 300.0),
        (["synapse.average_gradient=false"], 2.0),
        (["task.steps.learning_window=60"], 120.0),
        (["kernel.resolution=0.5"], 300.0),  # the window counts in steps
        (["neuron.rec.c_reg=0.5", "task.steps.recall=10"], 5.0),
    ],
    ids=str,
)
def test_c_reg_in_nests_scaling(overrides, expected):
    assert population_parameters(config(*overrides), "reg")["c_reg"] == expected


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_adapt_beta_in_closed_form(dt):
    given = config(f"kernel.resolution={dt}", "neuron.ad.adapt_tau=700", "neuron.ad.tau_m=13")
    expected = 1.7 * math.expm1(-dt / 700) / math.expm1(-dt / 13)
    assert adapt_beta(given.neuron.ad, dt) == pytest.approx(expected, rel=1e-12)
    assert population_parameters(given, "ad")["adapt_beta"] == pytest.approx(expected, rel=1e-12)


def test_adapt_beta_of_lists_is_one_value_per_neuron():
    ad = config("neuron.n_ad=2", "neuron.ad.tau_m=[10, 20]", "neuron.ad.adapt_tau=[500, 2000]", "recording.n_record=2")
    betas = [
        adapt_beta(config(f"neuron.ad.tau_m={tau_m}", f"neuron.ad.adapt_tau={adapt_tau}").neuron.ad, 1.0)
        for tau_m, adapt_tau in [(10, 500), (20, 2000)]
    ]
    assert adapt_beta(ad.neuron.ad, 1.0) == betas
    parameters = population_parameters(ad, "ad")
    assert (parameters["tau_m"], parameters["adapt_tau"]) == ([10.0, 20.0], [500.0, 2000.0])
    mixed = config("neuron.n_ad=2", "neuron.ad.adapt_tau=[500, 2000]", "recording.n_record=2").neuron.ad
    np.testing.assert_allclose(adapt_beta(mixed, 1.0)[1], betas[1])


def test_n_rec():
    assert config("neuron.n_reg=30").model.n_rec == 80


def test_populations_are_regular_then_adaptive():
    model = config("neuron.n_reg=30").model
    assert [(population.name, population.size, population.model) for population in model.populations] == [
        ("reg", 30, "eprop_iaf_bsshslm_2020"),
        ("ad", 50, "eprop_iaf_adapt_bsshslm_2020"),
    ]
    assert model.places == {"reg": slice(0, 30), "ad": slice(30, 80)}


@pytest.mark.parametrize(("missing", "other"), [("reg", "ad"), ("ad", "reg")])
def test_an_empty_population_does_not_exist(missing, other):
    given = config(f"neuron.n_{missing}=0", "recording.n_record_w=0")
    assert [population.name for population in given.model.populations] == [other]
    assert given.model.places == {other: slice(0, 50)}
    assert given.model.n_rec == 50
    assert [column.name for column in given.columns] == ["loss", "accuracy", "recall_error", f"rate_{other}"]


def test_recordables_are_nests():
    model = config().model
    both = ("V_m", "surrogate_gradient", "learning_signal")
    found = {population.name: population.recordables for population in model.populations}
    assert found == {"reg": both, "ad": (*both, "V_th_adapt", "adaptation")}
    signals = ("V_m", "readout_signal", "readout_signal_unnorm", "target_signal", "error_signal")
    assert model.readout_recordables == signals


def test_the_synapses_of_the_family():
    model = config("neuron.out.tau_m=33", "synapse.average_gradient=false").model
    assert model.plastic() == ({"average_gradient": False}, {"tau_m_readout": 33.0})
    assert set(model.computes) == {GRADIENT, STREAM}
