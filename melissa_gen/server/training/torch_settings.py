"""Settings of torch for the process that trains."""

import torch

from melissa_gen.study import Study

__all__ = ["configure_torch"]


def configure_torch(study: Study) -> None:
    """Sets the number of threads, the precision of matrix products, and what happens to tiny numbers.

    Call it before torch has started its threads, which take over the treatment of tiny numbers. Units of a network
    whose output stays zero have no gradient, and Adam's means of gradients then decay below the smallest normal number
    (1.2e-38). Processors compute with such numbers many times slower than with others; here they count as zero.
    """
    torch.set_num_threads(study.server.threads)
    if study.training.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    torch.set_flush_denormal(True)
