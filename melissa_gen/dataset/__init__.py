"""Reads and writes data sets of trajectories in one HDF5 file, in the layout of PDEBench.

Each field is stored under its name, `(n, T, *shape)`; a single field is also linked as `tensor`, its
name in PDEBench. The file also holds `x-coordinate` (and y, z), `t-coordinate` `(T,)`,
`parameters` `(n, d)` with the attribute `names`, `simulation` `(n,)`, `complete` `(n,)`, and the
root attribute `settings`, the JSON text of the settings that determine the data. The group `inputs`
holds the fields that each simulation has once, `(n, *shape)`, and the group `mesh` the points and
cells of an unstructured mesh. From melissa_gen,
this package imports only `melissa_gen.errors` and `melissa_gen.run_dir.durable`.

Reference: Takamoto et al., "PDEBench", NeurIPS 2022, arXiv 2210.07182.
"""

from melissa_gen.dataset.reader import Dataset
from melissa_gen.dataset.trajectories import Trajectories
from melissa_gen.dataset.writer import DatasetWriter, replace_settings

__all__ = ["Dataset", "DatasetWriter", "Trajectories", "replace_settings"]
