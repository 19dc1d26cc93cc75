"""Online training of neural surrogates from running simulations.

The data's way through the folders: `client` (solver side) -> `protocol` (wire) -> `server` (ingest, assembler)
-> `reservoir` -> `surrogates` (training) -> `sampling` (which parameters next) -> `client`.
"""

__version__ = "0.2.0"
