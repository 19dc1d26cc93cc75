import pytest

from melissa_gen.errors import RunError
from melissa_gen.server.device import agree


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
def test_what_the_ranks_agree_on(wanted, cards, found):
    assert agree(wanted, cards) == found


def test_a_rank_without_a_gpu_is_named():
    with pytest.raises(RunError, match=r"no CUDA device in rank 1 on n2; legal there: cpu, auto"):
        agree("cuda", ["n1 a", "n2 "])
