"""The command `melissa-gen doctor`, which checks the requirements of a study on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import zmq
from rich.console import Console
from rich.text import Text

from melissa_gen.errors import MelissaGenError, ProtocolError
from melissa_gen.launcher.backends.mpirun import (
    MpirunOptions,
    clean_environment,
    detect_implementation,
    find_mpirun,
    mpirun_command,
)
from melissa_gen.protocol.contact import remove_stale_folders, socket_parent

__all__ = ["Finding", "examine"]

_MESSAGE_SECONDS = 0.5
"""Time for which messages are sent to measure their rate."""
_QUEUED_MESSAGES = 50
"""Messages that wait on each side at most: 13 MB."""
LEAST_SHM_BYTES = 64e6
"""Shared memory below which MPI may fail."""
_HELLO = (
    "from mpi4py import MPI; c = MPI.COMM_WORLD; n = c.allreduce(1); "
    "c.rank or print(n, ' '.join(MPI.Get_library_version().split()[:4]))"
)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: What was checked.
        state: `ok`, `missing` (required), or `none` (missing but optional).
        text: What was found, and how to install it if it is missing.
    """

    what: str
    state: str
    text: str


def examine(console: Console) -> bool:
    """Runs all checks and prints the findings.

    Args:
        console: Where the findings are printed.

    Returns:
        Whether all requirements are met.
    """
    styles = {"ok": "green", "missing": "red", "none": "bright_black"}
    good = True
    for check in _CHECKS:
        for finding in _run_check(check):
            good &= finding.state != "missing"
            line = Text(f"{finding.state:<8}", style=styles[finding.state])
            line.append(f"{finding.what:<10} ", style="default")
            line.append(finding.text, style="default")
            console.print(line, soft_wrap=True)
    return good


def _run_check(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    what = check.__name__.strip("_")
    try:
        yield from check()
    except MelissaGenError as error:
        yield Finding(what, "missing", str(error))
    except Exception as error:
        yield Finding(what, "missing", f"{type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} in {sys.prefix}")
    for name in ("mpi4py", "torch", "pyzmq", "h5py"):
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing", f"pip install {name}")


def _mpi() -> Iterator[Finding]:
    mpirun = find_mpirun()
    implementation = detect_implementation(mpirun)
    options = MpirunOptions(mpirun, implementation, 2, (sys.executable, "-c", _HELLO))
    started = time.monotonic()
    try:
        done = subprocess.run(
            mpirun_command(options),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env=clean_environment(os.environ, implementation),
        )
    except subprocess.TimeoutExpired:
        yield Finding("mpi", "missing", f"{mpirun} -n 2 hangs; does this host's name resolve?")
        return
    seconds = time.monotonic() - started
    ranks, _, library = done.stdout.strip().partition(" ")
    if done.returncode != 0:
        last = " ".join((done.stderr or done.stdout).strip().splitlines()[-1:])
        yield Finding("mpi", "missing", f"{mpirun} -n 2 failed: {last}")
    elif ranks != "2":
        text = (
            f"{mpirun} -n 2 starts two separate ranks because mpi4py uses another MPI ({library}); "
            "keep one MPI in the environment, or set launcher.mpirun to its mpirun"
        )
        yield Finding("mpi", "missing", text)
    else:
        yield Finding(
            "mpi", "ok", f"{mpirun}: an MPI job with 2 ranks took {seconds:.1f} s, {library}"
        )


def _torch() -> Iterator[Finding]:
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(number).total_memory / 1e9
            text = f"{torch.cuda.get_device_name(number)}, {memory:.0f} GB"
            yield Finding("gpu", "ok", text)
    else:
        yield Finding("gpu", "none", "no CUDA device that torch can use: training runs on the CPU")
    for name, available in (("gloo", dist.is_gloo_available()), ("nccl", dist.is_nccl_available())):
        needed = name == "gloo" or torch.cuda.is_available()
        state = "ok" if available else "missing" if needed else "none"
        text = "exchanges gradients between ranks" if available else "not in this build of torch"
        yield Finding(name, state, text)


def _network() -> Iterator[Finding]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            yield Finding("loopback", "ok", f"tcp works, port {port} was free")
    name = socket.gethostname()
    try:
        yield Finding("hostname", "ok", f"{name} is {socket.gethostbyname(name)}")
    except OSError:
        text = f"{name} does not resolve; add the line '127.0.0.1 {name}' to /etc/hosts"
        yield Finding("hostname", "missing", text)
    legal = [key for key, state in psutil.net_if_stats().items() if state.isup]
    yield Finding("interfaces", "ok", f"{', '.join(sorted(legal))} (for server.interface)")


def _ipc() -> Iterator[Finding]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="melissa_gen-", dir=socket_parent()))
    except (ProtocolError, OSError) as error:
        yield Finding("ipc", "missing", str(error))
        return
    try:
        path = folder / "data-0000"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
        yield Finding("ipc", "ok", f"sockets in {folder.parent}")
    finally:
        shutil.rmtree(folder)
    if stale := remove_stale_folders():
        names = ", ".join(path.name for path in stale)
        yield Finding("ipc", "ok", f"removed folders of servers that were killed: {names}")


def _shm() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield Finding("/dev/shm", "missing", "not writable; MPI needs it: mount a tmpfs there")
        return
    free = shutil.disk_usage(shared).free
    left = [path for path in shared.glob("mpich_shm_*") if not _in_use(path)]
    if free < LEAST_SHM_BYTES:
        text = f"only {free / 1e6:.0f} MB free; in a container start it with --shm-size=1g"
        yield Finding("/dev/shm", "missing", text)
    else:
        yield Finding("/dev/shm", "ok", f"{free / 1e9:.1f} GB free")
    if left:
        size = sum(path.stat().st_size for path in left) / 1e6
        text = f"{len(left)} unused segment(s) of earlier MPI jobs, {size:.0f} MB: {left[0]} ..."
        yield Finding("/dev/shm", "none", text)


def _in_use(path: Path) -> bool:
    for one in psutil.process_iter():
        try:
            if any(str(path) == entry.path for entry in one.memory_maps()):
                return True
        except (psutil.Error, OSError):
            continue
    return False


def _machine() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0))
    yield Finding("cores", "ok", f"{usable} usable of {os.cpu_count()}")
    memory = psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    yield Finding("memory", "ok", f"{text}, copies at {_bandwidth():.1f} GB/s")
    rates = [f"{_message_rate(kind):.1f} GB/s over {kind}" for kind in ("ipc", "tcp")]
    yield Finding("messages", "ok", f"ZeroMQ carries those of 256 KiB at {' and '.join(rates)}")


def _bandwidth() -> float:
    """Measures the bandwidth of copying 128 MB with numpy, in GB/s."""
    import numpy as np

    source = np.ones(16_000_000)
    target = np.empty_like(source)
    best = 0.0
    for _ in range(4):
        started = time.perf_counter()
        np.copyto(target, source)
        best = max(best, source.nbytes / 1e9 / (time.perf_counter() - started))
    return best


def _message_rate(kind: str) -> float:
    """Measures the rate at which a thread receives messages of another one through a socket, in GB/s.

    Args:
        kind: `ipc` or `tcp`.
    """
    message = bytes(256 << 10)
    with (
        tempfile.TemporaryDirectory(dir=socket_parent()) as folder,
        zmq.Context() as context,
        context.socket(zmq.PULL) as receiver,
        context.socket(zmq.PUSH) as sender,
    ):
        sender.linger = 0
        sender.sndhwm = receiver.rcvhwm = _QUEUED_MESSAGES
        # On a machine whose sockets carry nothing, both sides give up.
        sender.sndtimeo = receiver.rcvtimeo = 5000
        receiver.bind(f"ipc://{folder}/rate" if kind == "ipc" else "tcp://127.0.0.1:*")
        sender.connect(receiver.getsockopt_string(zmq.LAST_ENDPOINT))
        sending = threading.Thread(target=_send_all, args=(sender, message), daemon=True)
        sending.start()
        # The time before the first message is that of connecting.
        receiver.recv()
        received, started = 0, time.perf_counter()
        while size := len(receiver.recv()):
            received += size
        seconds = time.perf_counter() - started
        sending.join()
    return received / 1e9 / seconds


def _send_all(sender: zmq.Socket[bytes], message: bytes) -> None:
    """Sends messages for a while, and then an empty one."""
    until = time.monotonic() + _MESSAGE_SECONDS
    while time.monotonic() < until:
        sender.send(message, copy=False)
    sender.send(b"")


def _scheduler() -> Iterator[Finding]:
    known = {"sbatch": "SLURM", "oarsub": "OAR", "qsub": "PBS", "bsub": "LSF", "flux": "Flux"}
    found = [f"{name} ({tool})" for tool, name in known.items() if shutil.which(tool)]
    if found:
        yield Finding("scheduler", "ok", ", ".join(found))
    else:
        yield Finding("scheduler", "none", "none on PATH: studies run on this machine")


_CHECKS = (_python, _mpi, _torch, _network, _ipc, _shm, _machine, _scheduler)
