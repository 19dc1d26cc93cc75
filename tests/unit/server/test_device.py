import re

import pytest

from melissa_gen.errors import RunError
from melissa_gen.server.training.device import agree, idle


@pytest.mark.parametrize(
    ("wanted", "cards", "found"),
    [
        ("auto", ["n1 a", "n1 b"], ("cuda", "nccl")),
        ("auto", ["n1 a", "n2 a"], ("cuda", "nccl")),
        ("auto", ["n1 a", "n1 a"], ("cpu", "gloo")),
        ("auto", ["n1 a", "n2 "], ("cpu", "gloo")),
        ("auto", ["n1 "], ("cpu", "gloo")),
        ("cuda", ["n1 a"], ("cuda", "nccl")),
        ("cuda", ["n1 a", "n1 a"], ("cuda", "gloo")),
        ("cpu", ["n1 a", "n1 b"], ("cpu", "gloo")),
    ],
)
def test_the_ranks_agree_on_a_device(wanted, cards, found):
    assert agree(wanted, cards) == found


def test_a_rank_without_a_gpu_is_named():
    with pytest.raises(RunError, match=r"no CUDA device in rank 1 on n2; legal there: cpu, auto"):
        agree("cuda", ["n1 a", "n2 "])


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        (["n1 ", "n2 "], None),
        (["n1 a", "n1 a"], "see 1 GPU, .* to use it: server.ranks=1, or server.device=cuda"),
        (["n1 a", "n1 b", "n2 "], "see 2 GPUs, .* to use them: server.ranks=2, or a GPU for each"),
    ],
)
def test_unused_gpus_are_reported(cards, said):
    assert re.search(said, idle(cards)) if said else idle(cards) is None
