"""Sketches: the mean squares of a field without the field, the same through a folded head as from the whole output."""

import numpy as np
import pytest
import torch

from melissa_gen.surrogates import MLP, Surrogate
from melissa_gen.surrogates.output_sketch import Sketch, Sketched

FIELDS = {"u": (20, 30), "v": (40,)}


class Opaque(MLP):
    """An MLP that does not declare its last linear layer."""

    trunk = head = None


def made(class_path="melissa_gen.surrogates.MLP", ensemble=None, fields=FIELDS):
    torch.manual_seed(1)
    bounds = {"a": (0.0, 1.0), "b": (-1.0, 1.0)}
    arguments = {"hidden": [16]}
    return Surrogate(bounds, (0.0, 1.0), fields, class_path, arguments, ensemble=ensemble).eval()


@pytest.fixture(autouse=True)
def generator():
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("ensemble", [None, ("heads", 3), ("members", 2)])
@pytest.mark.parametrize("fields", [FIELDS, {"u": (5,)}, {"u": (), "v": ()}])
def test_a_folded_head_gives_the_same_result_as_the_whole_output(ensemble, fields):
    with torch.no_grad():
        surrogate = made(ensemble=ensemble, fields=fields)
        opaque = made(f"{__file__}:Opaque", ensemble, fields)
        opaque.load_state_dict(surrogate.state_dict())
        sketch = Sketch(surrogate)
        points, times = torch.rand(6, 2, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
        short, whole = Sketched(surrogate, sketch), Sketched(opaque, sketch)
        assert short.width < whole.width or len(fields["u"]) < 2
        output = surrogate.member_outputs(points, times)
        flat = output.flatten(2).flatten(0, 1)
        direct = sketch(flat).reshape(6, output.shape[1], sketch.length)
        torch.testing.assert_close(whole(points, times), direct)
        torch.testing.assert_close(short(points, times), direct, rtol=1e-4, atol=1e-5)
        assert short(points[:0], times[:0]).shape == (0, output.shape[1], sketch.length)


def test_few_values_are_themselves_and_differences_are_per_length_of_the_axis():
    sketch = Sketch(made(fields={"u": (3, 4), "v": (5,)}))
    output = torch.rand(2, 17)
    found = sketch(output).numpy()
    u, v = output[:, :12].reshape(2, 3, 4).numpy(), output[:, 12:].numpy()
    parts = 3 * np.diff(u, axis=1), 4 * np.diff(u, axis=2), 5 * np.diff(v, axis=1)
    expected = np.concatenate([output.numpy(), *(part.reshape(2, -1) for part in parts)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (sketch.values, sketch.length) == (17, 38)


def test_mean_squares_of_large_fields_are_estimated():
    sketch = Sketch(made(fields={"u": (60, 80)}))
    x, y = np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 80), indexing="ij")
    waves = np.array([k * np.sin(3 * k * x + y) for k in range(1, 40)], np.float32)
    found = sketch(torch.from_numpy(waves).flatten(1)).numpy()
    values, differences = found[:, : sketch.values], found[:, sketch.values :]
    estimated = (values**2).mean(axis=1) / (waves**2).mean(axis=(1, 2))
    assert estimated.min() > 0.5 and estimated.max() < 2.0
    assert estimated.mean() == pytest.approx(1.0, abs=0.25)
    steps = [60 * np.diff(waves, axis=1), 80 * np.diff(waves, axis=2)]
    exact = np.concatenate([s.reshape(len(waves), -1) for s in steps], axis=1)
    steep = (differences**2).mean(axis=1) / (exact**2).mean(axis=1)
    assert steep.mean() == pytest.approx(1.0, abs=0.25)
