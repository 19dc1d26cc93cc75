"""The validation of one rank: the error of a trajectory in parts, and that of predicting the mean."""

import numpy as np
import pytest
import torch

from melissa_gen.dataset import Dataset, DatasetWriter
from melissa_gen.run_dir.recorded_run import ValidationCases
from melissa_gen.server.coordination.events import JOINING, VALIDATING
from melissa_gen.server.training.spectra import energy_spectrum, grid_axes, log_difference
from melissa_gen.server.training.validation import Validation
from melissa_gen.server.training.validation_sets import ValidationSets
from melissa_gen.surrogates import Metric, Surrogate
from tests.unit.server.trainers import generator, world

__all__ = ["generator", "world"]


def trajectory(number):
    return np.sin(np.arange(7 * 5).reshape(7, 5) * (number + 1)).astype(np.float32) + 2.0


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path / "d.h5", {"u": ((5,), "f4")}, 7, ["a"], 3, {"seed": 1}) as writer:
        for row in range(3):
            writer.begin(row, row, [row / 3])
            for step, values in enumerate(trajectory(row)):
                writer.write(row, step, "u", values)
            writer.finish(row)
    return tmp_path / "d.h5"


def test_no_forward_pass_has_more_rows_than_a_batch(path):
    surrogate = Surrogate({"a": (0, 1)}, (0, 6), {"u": (5,)})
    rows = []
    surrogate.network.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    whole = Validation(path, torch.device("cpu"), 100).errors(surrogate).total
    assert rows == [7, 7, 7]
    rows.clear()
    parts = Validation(path, torch.device("cpu"), 3).errors(surrogate).total
    assert rows == [3, 3, 1] * 3
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_each_part_of_a_validation_is_announced(path):
    surrogate = Surrogate({"a": (0, 1)}, (0, 6), {"u": (5,)})
    pieces = []
    Validation(path, torch.device("cpu"), 3, pieces.append).errors(surrogate)
    assert pieces == [VALIDATING] * 9 + [JOINING]


def test_the_pictures_of_a_validation_need_the_memory_of_one_simulation(path, monkeypatch):
    surrogate = Surrogate({"a": (0, 1)}, (0, 6), {"u": (5,)})
    validation, order = Validation(path, torch.device("cpu"), 100), []
    validation.errors(surrogate)
    surrogate.network.register_forward_hook(lambda *of: order.append("predicted"))
    read = Dataset.read
    monkeypatch.setattr(
        Dataset, "read", lambda *of: order.append("read") or read(*of), raising=True
    )
    validation.save_cases(surrogate, path.with_name("cases.npz"), {"u": "K"})
    assert order == ["predicted"] * 3 + ["read", "predicted"] * 3
    with np.load(path.with_name("cases.npz")) as found:
        steps, worst = found["time_steps"], int(found["case_index"][2])
        np.testing.assert_array_equal(found["true"][2], trajectory(worst)[steps])
        wanted = surrogate.predict({"a": worst / 3}, steps.astype(float))["u"]
        np.testing.assert_allclose(found["predicted"][2], wanted, rtol=1e-5)


def test_the_error_of_the_mean(path):
    true = np.stack([trajectory(row) for row in range(3)]).astype(np.float64)
    wanted = [np.sqrt(np.square(one - true.mean()).mean() / np.square(one).mean()) for one in true]
    found = Validation(path, torch.device("cpu"), 3).errors_of_mean().total
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_field_that_is_zero_in_one_simulation_does_not_own_its_error(tmp_path):
    """Each field has its own errors; one that is nearly zero is compared with a tenth of its usual size."""
    fields = {"u": ((5,), "f4"), "v": ((3,), "f8")}
    with DatasetWriter(tmp_path / "d.h5", fields, 2, ["a"], 3, {}) as writer:
        for row in range(3):
            writer.begin(row, row, [row / 3])
            for step in range(2):
                writer.write(row, step, "u", np.full(5, 1e-9 if row == 0 else 2.0))
                writer.write(row, step, "v", np.full(3, 4.0))
            writer.finish(row)
    surrogate = Surrogate({"a": (0, 1)}, (0, 1), {"u": (5,), "v": (3,)})
    for parameter in surrogate.network.parameters():
        torch.nn.init.zeros_(parameter)
    # It predicts 0.1 and 5.
    surrogate.set_output_statistics({"u": 0.1, "v": 5.0}, {"u": 1.0, "v": 1.0})
    validation = Validation(tmp_path / "d.h5", torch.device("cpu"), 2)
    found = validation.errors(surrogate)
    usual = 2.0 * np.sqrt(2 / 3)
    np.testing.assert_allclose(found.by_field["u"], [0.1 / (0.1 * usual), 0.95, 0.95], rtol=1e-5)
    np.testing.assert_allclose(found.by_field["v"], 0.25, rtol=1e-5)
    np.testing.assert_allclose(found.total, (found.by_field["u"] + 0.25) / 2, rtol=1e-5)
    assert found.by_field_summary()["v"]["max"] == pytest.approx(0.25)
    validation.save_cases(surrogate, tmp_path / "cases.npz", {"u": "K", "v": "m/s"})
    cases = ValidationCases.read(tmp_path / "cases.npz")
    assert [(one.field_name, one.unit, one.true.shape) for one in cases.fields] == [
        ("u", "K", (3, 2, 5)),
        ("v", "m/s", (3, 2, 3)),
    ]
    np.testing.assert_array_equal(cases.fields[1].errors, found.by_field["v"])
    np.testing.assert_array_equal(cases.by_step, found.by_step)
    np.testing.assert_array_equal(cases.times, found.times)
    np.testing.assert_array_equal(cases.correlation_times, found.correlation_times)
    np.testing.assert_array_equal(cases.fields[1].predicted, np.full((3, 2, 3), 5.0))


def test_an_absolute_error_is_in_units_of_the_standard_deviation_over_the_set(path, tmp_path):
    """The unit does not depend on the scale in training, so that runs with other samples can be compared."""
    true = np.stack([trajectory(row) for row in range(3)]).astype(np.float64)
    wanted = np.sqrt(np.square(true - true.mean()).mean(axis=(1, 2))) / true.std()
    metric = Metric("absolute", {"u": (5,)})
    validation = Validation(path, torch.device("cpu"), 3, metric=metric)
    found = validation.errors_of_mean()
    np.testing.assert_allclose(found.total, wanted, rtol=1e-5)
    np.testing.assert_allclose(np.square(found.by_step).mean(axis=1), wanted**2, rtol=1e-5)
    surrogate = Surrogate({"a": (0, 1)}, (0, 6), {"u": (5,)})
    errors = validation.save_cases(surrogate, tmp_path / "cases.npz", {"u": "K"}, "rmse")
    cases = ValidationCases.read(tmp_path / "cases.npz")
    assert cases.error_name == "rmse" and not len(cases.nrmse)
    np.testing.assert_array_equal(cases.errors, errors.total)


def test_further_sets_have_their_own_results_and_one_decides(path, tmp_path):
    other = tmp_path / "far.h5"
    with DatasetWriter(other, {"u": ((5,), "f4")}, 7, ["a"], 1, {}) as writer:
        writer.begin(0, 0, [9.0])
        writer.write_steps(0, 0, "u", 50.0 * trajectory(0))
        writer.finish(0)
    surrogate = Surrogate({"a": (0, 1)}, (0, 6), {"u": (5,)})
    main, far = (Validation(one, torch.device("cpu"), 3) for one in (path, other))
    results, decisive = ValidationSets(main, {"far": far}).measure(surrogate)
    assert results["simulations"] == 3 and results["sets"]["far"]["simulations"] == 1
    assert results["nrmse"]["mean"] == pytest.approx(main.errors(surrogate).total.mean())
    assert decisive.total.tolist() == main.errors(surrogate).total.tolist()
    wanted = far.errors(surrogate).total
    assert results["sets"]["far"]["nrmse"]["max"] == pytest.approx(wanted[0])
    _, decisive = ValidationSets(main, {"far": far}, "far").measure(surrogate)
    assert decisive.total.tolist() == wanted.tolist()
    # Without a set of the prior, one of the others has the results.
    results, decisive = ValidationSets(far, {"far": far}).measure(surrogate)
    assert results["simulations"] == 1 and results["nrmse"] == results["sets"]["far"]["nrmse"]
    assert decisive.total.tolist() == wanted.tolist()


def test_a_wave_has_its_energy_at_its_wavenumber():
    x, y = np.meshgrid(np.arange(16) / 16, np.arange(12) / 12, indexing="ij")
    plane = np.sin(2 * np.pi * (3 * x + 4 * y)) + 7.0
    waves = torch.from_numpy(np.stack([plane, 2 * np.cos(4 * np.pi * y)]))
    found = energy_spectrum(waves, [-2, -1])
    assert found.shape == (2, 6)
    wanted = torch.zeros(2, 6, dtype=torch.float64)
    wanted[0, 5 - 1], wanted[1, 2 - 1] = 0.5, 2.0
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    channels = torch.stack([waves, waves], dim=-1)
    torch.testing.assert_close(energy_spectrum(channels, [-3, -2]), 2 * wanted, atol=1e-12, rtol=0)
    assert float(log_difference(100 * found[1:, 1:2], found[1:, 1:2])) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("shape", "channels", "axes"),
    [
        ((16,), None, [-1]),
        ((16, 16, 2), "last", [-3, -2]),
        ((2, 16, 16), "first", [-2, -1]),
        ((2, 16), None, []),
        ((), None, []),
        ((8, 8, 8, 8), None, []),
    ],
)
def test_the_axes_of_the_grid(shape, channels, axes):
    assert grid_axes(shape, channels) == axes


def test_spectra_are_in_the_results(path, tmp_path):
    surrogate = Surrogate({"a": (0, 1)}, (0, 6), {"u": (5,)})
    validation = Validation(path, torch.device("cpu"), 3)
    found = validation.save_cases(surrogate, tmp_path / "cases.npz", {"u": "K"})
    true = torch.from_numpy(np.stack([trajectory(row) for row in range(3)]))
    wanted = torch.stack([energy_spectrum(one, [-1]) for one in true]).mean(dim=0)
    np.testing.assert_allclose(found.spectra["u"][0], wanted, rtol=1e-6)
    assert found.spectra["u"].shape == (2, 7, 2) and found.spectral > 0.1
    cases = ValidationCases.read(tmp_path / "cases.npz")
    np.testing.assert_array_equal(cases.fields[0].spectrum, found.spectra["u"])
    np.testing.assert_array_equal(cases.spectrum_times, np.arange(7.0))
