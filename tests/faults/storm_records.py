"""The records of all storms in a file, and the table of the times to recover that follows from them.

    python -m tests.faults.storm_records

writes the table of `docs/storms.jsonl` into `docs/pages/how-to/faults.md`.
"""

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.storm_faults import sentence

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "storms.jsonl"
PAGE = ROOT / "docs" / "pages" / "how-to" / "faults.md"
BEGIN, END = "<!-- written by tests/faults/storm_records.py -->\n\n", "\n<!-- end -->"
PASSED = "passed"


@dataclass(frozen=True)
class Record:
    """One storm.

    Attributes:
        seed: The seed, from which the faults follow.
        faults: The names of the faults in their order.
        recoveries: (name of the fault, seconds from its end to the next progress) for each fault.
        seconds: Length of the storm.
        commit: The commit that was tested; with a "+" if files were changed since.
        verdict: "passed", or the first line of what was wrong.
    """

    seed: int
    faults: list
    recoveries: list
    seconds: float
    commit: str
    verdict: str

    @property
    def passed(self):
        """Whether all invariants held."""
        return self.verdict == PASSED


def read(path):
    """Returns the records of a file, which may not exist yet."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [Record(**json.loads(line)) for line in lines]


def append(path, record):
    """Adds a record to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def open_seeds(records, first, count):
    """Returns those of `count` seeds from the first one on whose storm has not passed."""
    passed = {record.seed for record in records if record.passed}
    return [seed for seed in range(first, first + count) if seed not in passed]


def table(records):
    """Returns a Markdown table of the seconds to recover by fault, of the storms that passed."""
    recoveries = [one for record in records if record.passed for one in record.recoveries]
    lines = ["| fault | times | median (s) | longest (s) |", "| --- | --- | --- | --- |"]
    for name in sorted({name for name, _ in recoveries}):
        seconds = [s for n, s in recoveries if n == name]
        median, longest = statistics.median(seconds), max(seconds)
        lines.append(f"| {sentence(name)} | {len(seconds)} | {median:.1f} | {longest:.1f} |")
    return "\n".join(lines) + "\n"


def account(records):
    """Returns sentences with the number of storms, of those that failed, and of the last ones without a failure."""
    failed = [record for record in records if not record.passed]
    since = len(records) - 1 - max((i for i, r in enumerate(records) if not r.passed), default=-1)
    faults = sum(len(record.faults) for record in records)
    text = f"{len(records)} storms with {faults} faults were played; {len(failed)} of them failed."
    return text + (f" The last {since} passed." if failed else "")


def written(page, records):
    """Returns a page with the account and the table of the records."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{account(records)}\n\n{table(records)}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8"), read(RESULTS)), "utf-8")
