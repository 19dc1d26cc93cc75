"""Online training against generating first, with a data set of four times the memory.

The heat study on a mesh of 512 x 512, so that a field has 1 MiB. All
processes of a case run in a control group that limits their memory together, the page cache of the files that they read
and write included. The data set has four times this limit. Online: `melissa-gen run`. Offline: `melissa-gen generate`,
then the same number of batches from the HDF5 file through a torch DataLoader with one worker process
(`online_offline.py` says what both have in common).

The disk of one machine is faster than the share of a process in a file system that a whole cluster uses. Therefore, the
batch rate of the offline training is also measured with limits on what the control group may read in a second. Online
training reads nothing, so that its rate is that of the first row.

Needs the controllers `memory` and `blkio` of control groups, version 1, and the right to create groups (root).
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import HEAT, Result, command_line, environment, finish
from offline_training import offline_run
from online_offline import melissa_gen, online_run, time_to

GROUPS = Path("/sys/fs/cgroup")
MESH, STEPS = 512, 50
MEMORY = 3_000_000_000
RATES = (400, 200, 100, 50)
SETTINGS = (
    f'simulation.command=[python, heat.py, --mesh, "{MESH}", --steps, "{STEPS}"]',
    "simulation.processes=1",
    f"simulation.time_steps={STEPS}",
    f"simulation.fields.temperature.shape=[{MESH}, {MESH}]",
    "simulation.timeout=600 s",
    "surrogate.arguments={hidden: [64, 16]}",
    "training.batch_size=10",
    "training.draws_per_sample=2",
    "reservoir={policy: reservoir, capacity: 150, watermark: 50, checkpoint: false}",
    "server.ranks=1",
    "launcher.clients=1",
)
FULL = ("simulation.count=240", "training.validation={simulations: 4, every: 400}")
QUICK = ("simulation.count=6", "training.validation={simulations: 2, every: 50}")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--scratch", type=Path, help="folder for the files, on a disk")
    args = parser.parse_args()
    settings = [*SETTINGS, *(QUICK if args.quick else FULL)]
    env = environment()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        rates = RATES[-1:] if args.quick else RATES
        result = compare(Path(scratch), settings, rates, 20 if args.quick else 200)
    finish(result, env, args, "larger_than_memory")


def compare(scratch: Path, settings: list[str], rates: Sequence[int], window: int) -> Result:
    """Trains online and offline, and offline for `window` batches at each limit in MB/s."""
    from melissa_gen.launcher.commands.validation_cache import validation_set
    from melissa_gen.report.live import LiveView
    from melissa_gen.study import load_study, write_study

    study = load_study(HEAT, settings)
    validation = validation_set(study, scratch / "validation", LiveView())
    overrides = [word for setting in settings for word in ("--set", setting)]
    data = scratch / "data.h5"
    with bounded(MEMORY) as prefix:
        online = online_run(HEAT, scratch / "online", overrides, prefix)
        began = time.perf_counter()
        count = ("--simulations", str(study.simulation.count))
        output = ("--output", str(data))
        melissa_gen("generate", str(HEAT), *count, *output, *overrides, prefix=prefix)
        generated = time.perf_counter() - began
    write_study(study, scratch / "study.yaml")
    job: dict[str, Any] = {
        "study": str(scratch / "study.yaml"),
        "folder": str(study.folder),
        "data": str(data),
        "source": "disk",
    }

    def offline(name: str, more: dict[str, Any], limit: int | None = None) -> dict[str, Any]:
        files = {key: str(scratch / f"{name}.{key}") for key in ("output", "store")}
        with data.open() as file:
            # What an earlier case has read does not belong to any control group any more.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with bounded(MEMORY, device=scratch, read_rate=limit) as prefix:
            return offline_run(
                scratch / f"{name}.job", {**job, **files, **more}, 1, generated, prefix
            )

    whole = offline("whole", {"validation": str(validation), "batches": online["batches"]})
    part = {"validation": None, "batches": window}
    limited = {rate: offline(f"limit-{rate}", part, rate) for rate in rates}
    sizes = {"online": _size(scratch / "online"), "offline": data.stat().st_size}
    result = _result(online, whole, limited, sizes)
    result.notes += [
        f"limit on the memory of all processes of a case: {MEMORY / 1e9:g} GB; "
        f"data set: {sizes['offline'] / 1e9:.2f} GB, generated in {generated:.0f} s",
    ]
    return result


@contextlib.contextmanager
def bounded(
    memory: int, *, device: Path | None = None, read_rate: int | None = None
) -> Iterator[list[str]]:
    """Yields the words that start a command within a control group.

    Args:
        memory: Bytes that all its processes and their page cache may use.
        device: A folder on the disk that the next limit is for.
        read_rate: Megabytes that they may read in a second, or None.
    """
    limits = {"memory": {"memory.limit_in_bytes": str(memory)}}
    if device is not None and read_rate is not None:
        limit = f"{_disk_of(device)} {read_rate * 1_000_000}"
        limits["blkio"] = {"blkio.throttle.read_bps_device": limit}
    groups = [GROUPS / controller / f"melissa-gen-{os.getpid()}" for controller in limits]
    try:
        for group, values in zip(groups, limits.values(), strict=True):
            group.mkdir()
            for name, value in values.items():
                (group / name).write_text(value)
    except OSError as error:
        sys.exit(
            f"this benchmark needs control groups of version 1, and the right to use them: {error}"
        )
    enter = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups)
    try:
        yield ["sh", "-c", f'{enter}exec "$@"', "sh"]
    finally:
        for group in groups:
            group.rmdir()


def _disk_of(folder: Path) -> str:
    """Returns the numbers of the disk that holds a folder, as major:minor."""
    number = os.stat(folder).st_dev
    block = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    whole = block.parent if (block / "partition").exists() else block
    return (whole / "dev").read_text().strip()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _result(
    online: dict[str, Any],
    whole: dict[str, Any],
    limited: dict[int, dict[str, Any]],
    sizes: dict[str, int],
) -> Result:
    result = Result(
        "Online against generating first, with data of four times the memory",
        (
            "training",
            "reads at most, MB/s",
            "s to same error",
            "s in total",
            "batches/s",
            "online / this, batches/s",
            "final NRMSE",
            "GB on disk at the end",
        ),
    )
    error = max(one["curve"][-1][2] for one in (online, whole))
    rate = online["batches_per_second"]
    for name, one in (("online", online), ("offline", whole)):
        figures = (time_to(one["curve"], error), one["total"], one["batches_per_second"])
        faster, last = rate / figures[-1], one["curve"][-1][2]
        result.rows.append((name, None, *figures, faster, last, sizes[name] / 1e9))
    for limit, one in limited.items():
        own = one["batches_per_second"]
        result.rows.append(("offline", limit, None, None, own, rate / own, None, None))
    result.notes.append(f"same error: validation NRMSE {error:.4g}; {online['batches']} batches")
    result.details = {"online": online, "offline": whole, "limited": limited}
    return result


if __name__ == "__main__":
    main()
