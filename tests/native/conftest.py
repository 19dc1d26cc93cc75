"""Fixtures: the library and its programs, built once, and a fake server."""

from types import SimpleNamespace

import pytest

from .building import BIN, HERE, ROOT, STRICT, flags, install, need, run
from .fake_server import FakeServer


@pytest.fixture(scope="session")
def without_mpi(tmp_path_factory):
    """The library without MPI, and the Fortran module if there is a compiler."""
    options = ("-DMELISSA_GEN_MPI=OFF",)
    return install(tmp_path_factory.mktemp("without_mpi"), *options)


@pytest.fixture(scope="session")
def with_mpi(tmp_path_factory):
    """The library with the MPI beside the interpreter: `prefix` and `mpicc`."""
    mpicc = BIN / "mpicc"
    if not mpicc.exists():
        pytest.skip(f"no mpicc in {BIN}: pip install mpich")
    options = (f"-DMPI_C_COMPILER={mpicc}", "-DMELISSA_GEN_FORTRAN=OFF")
    prefix = install(tmp_path_factory.mktemp("with_mpi"), *options)
    return SimpleNamespace(prefix=prefix, mpicc=mpicc)


@pytest.fixture(scope="session")
def with_fortran(tmp_path_factory):
    """The library with a Fortran MPI of Debian's MPICH, because the wheel has no Fortran."""
    need("gfortran", "gfortran")
    mpifort = need("mpifort.mpich", "libmpich-dev")
    mpicc = need("mpicc.mpich", "libmpich-dev")
    prefix = install(tmp_path_factory.mktemp("with_fortran"), f"-DMPI_C_COMPILER={mpicc}")
    return SimpleNamespace(prefix=prefix, mpifort=mpifort)


@pytest.fixture(scope="session")
def probe(without_mpi, tmp_path_factory):
    """A solver of one process whose argument selects its behavior."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    std = ("-std=c11", "-g", *STRICT)
    run("cc", *std, HERE / "probe.c", *flags(without_mpi), "-lm", "-o", program)
    return program


@pytest.fixture(scope="session")
def fortran_probe(without_mpi, tmp_path_factory):
    """The same solver in Fortran."""
    compiler = need("gfortran", "gfortran")
    folder = tmp_path_factory.mktemp("modes")
    options = ("-g", *STRICT, "-J", folder, HERE / "modes.f90")
    run(compiler, *options, *flags(without_mpi, "melissa_gen_fortran"), "-o", folder / "modes")
    return folder / "modes"


@pytest.fixture(scope="session")
def heat_c(with_mpi, tmp_path_factory):
    program = tmp_path_factory.mktemp("heat_c") / "heat"
    source = ROOT / "simulations" / "heat" / "c" / "heat.c"
    run(with_mpi.mpicc, *STRICT, source, *flags(with_mpi.prefix), "-lm", "-o", program)
    return program


@pytest.fixture(scope="session")
def heat_fortran(with_fortran, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heat_fortran")
    source = ROOT / "simulations" / "heat" / "fortran" / "heat.f90"
    options = (*STRICT, "-J", folder, source, *flags(with_fortran.prefix, "melissa_gen_fortran"))
    run(with_fortran.mpifort, *options, "-o", folder / "heat")
    return folder / "heat"


@pytest.fixture
def serve(tmp_path):
    """Starts fake servers, and ends them after the test."""
    servers = []

    def start(*args, **options):
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(FakeServer(folder, *args, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
