"""Networks that work in evaluation mode: which can be trained, and the message for those that can't."""

import math

import pytest
import torch

from melissa_gen.builders.gpu import check_device
from melissa_gen.builders.surrogate import try_surrogate
from melissa_gen.errors import StudyError
from melissa_gen.server.training import learner
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

NETWORKS = """
import math
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self, n_inputs, output_shape, width=8):
        super().__init__()
        self.shape = tuple(output_shape)
        self.a = nn.Linear(n_inputs, width)
        self.b = nn.Linear(width, math.prod(self.shape))
    def hidden(self, x):
        return torch.tanh(self.a(x))
    def forward(self, x):
        return self.b(self.hidden(x)).reshape(len(x), *self.shape)

class WithSpare(Base):
    def __init__(self, n_inputs, output_shape, width=8):
        super().__init__(n_inputs, output_shape, width)
        self.c = nn.Linear(width, width)
class Conditional(WithSpare):
    def hidden(self, x):
        h = super().hidden(x)
        return self.c(h) if x.mean() > 0 else h
class Normalized(WithSpare):
    def __init__(self, n_inputs, output_shape, width=8):
        super().__init__(n_inputs, output_shape, width)
        self.norm = nn.BatchNorm1d(width)
    def hidden(self, x):
        return self.norm(super().hidden(x))
class Double(Base):
    def __init__(self, n_inputs, output_shape):
        super().__init__(n_inputs, output_shape)
        self.double()
class ComplexFirst(Base):
    def __init__(self, n_inputs, output_shape, width=8):
        super().__init__(n_inputs, output_shape, width)
        self.a = nn.Linear(n_inputs, width, dtype=torch.cfloat)
    def hidden(self, x):
        return torch.view_as_real(self.a(x.to(torch.cfloat))).sum(-1)

class TrainingTuple(Base):
    def forward(self, x):
        y = super().forward(x)
        return (y, y) if self.training else y
class NoParameters(nn.Module):
    def __init__(self, n_inputs, output_shape):
        super().__init__()
        self.shape = output_shape
    def forward(self, x):
        return x.new_zeros(len(x), *self.shape)
class Detached(Base):
    def forward(self, x):
        return super().forward(x).detach()
class NotFinite(Base):
    def forward(self, x):
        return super().forward(x) / 0.0 * 0.0
class NotFiniteGradient(Base):
    def forward(self, x):
        return torch.sqrt(super().forward(x) * 0.0)
class ComplexOutput(Base):
    def forward(self, x):
        return super().forward(x).to(torch.cfloat)
class InPlace(Base):
    def hidden(self, x):
        h = torch.sigmoid(self.a(x))
        h += 1
        return h
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "nets.py").write_text(NETWORKS)

    def make(name, **training):
        return study_of(surrogate={"class": f"{tmp_path / 'nets.py'}:{name}"}, training=training)

    return make


@pytest.mark.parametrize(
    "name", ["WithSpare", "Conditional", "Normalized", "Double", "ComplexFirst"]
)
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_network_simply_works(study, name, optimizer):
    given = study(name, optimizer=optimizer)
    try_surrogate(given)
    trainer, state = trainer_of(given)
    assert trainer.run() is None
    assert trainer.batches == 6 and math.isfinite(trainer.loss)
    assert len(state.take_first_pass()) == 48


@pytest.mark.parametrize(
    ("conditioning", "spare"), [("channels", False), ("film", False), ("channels", True)]
)
def test_ranks_search_for_unused_parameters_of_an_operator_only_if_it_has_some(
    monkeypatch, conditioning, spare
):
    """The search costs time in each step."""
    embeddings = pytest.importorskip("neuralop.layers.embeddings")
    arguments = {"n_modes": 4, "hidden_channels": 8, "conditioning": conditioning}
    if spare:
        embedding = embeddings.GridEmbedding2D(in_channels=2)
        embedding.spare = torch.nn.Linear(2, 2)
        arguments["positional_embedding"] = embedding
    asked, wrapper = [], learner.DistributedDataParallel

    def wrapped(network, **options):
        asked.append(options["find_unused_parameters"])
        return wrapper(network, **options)

    monkeypatch.setattr(learner, "DistributedDataParallel", wrapped)
    network = {"class": "melissa_gen.surrogates.FNO", "arguments": arguments}
    fields = {"u": {"shape": [6, 6]}}
    trainer, _ = trainer_of(study_of(surrogate=network, simulation={"fields": fields}))
    assert trainer.run() is None and trainer.batches == 6
    assert asked == [spare]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TrainingTuple", "returns tuple in training mode; it must be one tensor (8, 6)"),
        ("NoParameters", "has no parameter to train"),
        ("Detached", "its output depends on no parameter"),
        ("NotFinite", "returns NaN or infinity for inputs within"),
        ("NotFiniteGradient", "has gradients that are NaN or infinite"),
        ("ComplexOutput", "returns complex values"),
        ("InPlace", "fails in the backward pass: RuntimeError"),
    ],
)
def test_networks_that_can_not_be_trained_are_refused_in_one_sentence(study, name, words):
    with pytest.raises(StudyError) as error:
        try_surrogate(study(name))
    text = str(error.value)
    assert words in text and f":{name}'" in text and "\n" not in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_this_machine_lacks_is_refused_before_the_start():
    given = study_of(server={"device": "cuda"})
    with pytest.raises(
        StudyError, match=r"'cuda'.* no CUDA device on this machine; legal here: cpu"
    ):
        check_device(given)
    check_device(study_of(server={"device": "cuda"}, launcher={"backend": "slurm"}))
    without = {"training": {"enabled": False}, "record": {"file": "r.h5"}}
    check_device(study_of(server={"device": "cuda"}, **without))


def test_a_normalization_needs_more_than_one_row(study):
    with pytest.raises(StudyError, match=r"on a batch of 1 rows: .*normalization over a batch"):
        try_surrogate(study("Normalized", batch_size=1))
