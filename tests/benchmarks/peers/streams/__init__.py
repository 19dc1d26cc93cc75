"""One module for each peer, with a function `stream` that solves in another process and yields what arrives here.

Each module has `CONFIGURATION`, one line that says how the peer is used, and `NEEDS`: packages to import, and programs.
`RANKS` is the number of MPI ranks if there are several, and `FORKS` says that the peer forks this process.
"""
