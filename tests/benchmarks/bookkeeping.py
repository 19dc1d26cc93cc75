"""Cost of the server's records of simulations: time of events, time of a checkpoint under the lock, and memory.

The control machine, the ledger, the queue of proposals with a real sampler, the difficulty tracker and the records of
one server rank are driven in one process, without sockets, solvers or training, as in a study with 64 clients: each
simulation is issued, its samples are recorded as received, and one report of the rank brings their first losses and the
end of the attempt. Events and states are what rank 0 does while it holds its lock. Their times are CPU times of the
calling thread, because wall-clock time also contains the time of other programs. The memory is that of the whole
process above what it had before the first simulation, and is compared with what a server promises for its records
before it starts.
"""

import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from measure import HEAT, Result, Target, command_line, environment, finish

from melissa_gen.builders.fields import field_specs
from melissa_gen.builders.memory import bookkeeping_megabytes
from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.sampler import build_sampler, study_facts
from melissa_gen.protocol import wire
from melissa_gen.protocol.wire import StudyField
from melissa_gen.reservoir import SlotStore
from melissa_gen.run_dir.checkpoint import begin_checkpoint, write_state
from melissa_gen.run_dir.checkpoint_folder import STATE, read_state
from melissa_gen.sampling import DifficultyTracker
from melissa_gen.server.coordination.events import (
    AttemptReport,
    ClientAsks,
    ClientHello,
    LauncherHeard,
    LauncherHello,
    Moment,
    RankHello,
    RankReport,
    SendClient,
    SendRank,
    Tick,
)
from melissa_gen.server.coordination.ledger import Ledger
from melissa_gen.server.coordination.machine import ControlMachine
from melissa_gen.server.coordination.proposal_queue import ProposalQueue
from melissa_gen.server.coordination.settings import control_settings, study_parameters
from melissa_gen.server.ingest.assembler import Assembler
from melissa_gen.study import Study, load_study

CLIENTS = 64
LIMIT = 0.1
"""Longest time under a lock (seconds)."""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--simulations", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--steps", type=int, default=100, metavar="N")
    args = parser.parse_args()
    count = 20_000 if args.quick else args.simulations
    env = environment()
    settings = [
        f"simulation.count={count}",
        f"simulation.time_steps={args.steps}",
        f"launcher.clients={CLIENTS}",
        "sampler.method=sobol",
        "simulation.processes=1",
        "server.ranks=1",
    ]
    study = load_study(HEAT, settings)
    run = Run(study)
    columns = ("simulations", "event, µs", "longest event, ms", "state, ms", "memory, MB")
    result = Result(f"Records of {count:,} simulations of {args.steps} time steps", columns)
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in sorted({max(count // 100, 1), max(count // 10, 1), count}):
            mean, most = statistics_of(run.events_until(number))
            state, seconds = measured(run.state)
            write(Path(folder), state)
            del state
            longest = max(longest, seconds, most)
            result.rows.append((number, 1e6 * mean, 1e3 * most, 1e3 * seconds, run.megabytes))
        megabytes = run.megabytes
        result.notes += run.end(Path(folder))
    promised = bookkeeping_megabytes(study)
    result.targets = [
        Target("longest time under the lock, ms", 1e3 * LIMIT, 1e3 * longest, at_least=False),
        Target("memory / promise", 1.0, megabytes / promised, at_least=False),
    ]
    result.notes.append(f"promise: {promised:,.0f} MB")
    finish(result, env, args, "bookkeeping")


class Run:
    """A run of the control machine with one server rank and clients that solve at once."""

    def __init__(self, study: Study) -> None:
        self._study = study
        simulation, prior = study.simulation, prior_of(study)
        facts = study_facts(simulation, study.reservoir, study.server, study.folder)
        self.ledger, self.queue = self._records(), self._proposals(prior, facts)
        self.machine = ControlMachine(control_settings(study), self.ledger, self.queue)
        self.steps = simulation.time_steps
        fields = [StudyField(n, f.dtype, tuple(f.shape)) for n, f in simulation.fields.items()]
        rows = SlotStore(field_specs(study.simulation), 2, 1)
        self.rank = Assembler(fields, self.steps, simulation.count, 1, 0, 1, rows, (1, 1))
        self.queue.start()
        for event in (RankHello(0), LauncherHello()):
            self._handle(event)
        for client in range(CLIENTS):
            self._handle(ClientHello(b"%d" % client, f"client-{client}", "node", 1, 1))
        # As the server does when it is ready.
        gc.freeze()
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss

    def _records(self) -> Ledger:
        simulation = self._study.simulation
        return Ledger(simulation.count, simulation.time_steps, simulation.retries)

    def _proposals(self, prior: Any, facts: Any) -> ProposalQueue:
        study = self._study
        return ProposalQueue(
            build_sampler(study.sampler, prior, study.seed, facts),
            prior,
            DifficultyTracker("loss"),
            size=1000,
            low=2 * CLIENTS,
            total=study.simulation.count,
            importance_exponent=0.0,
            seed=study.seed,
            event=lambda *_, **__: None,
        )

    @property
    def megabytes(self) -> float:
        """Memory since the start (10**6 bytes)."""
        return (self._process.memory_info().rss - self._before) / 1e6

    def events_until(self, number: int) -> Iterator[float]:
        """Finishes simulations up to this number; yields the seconds of each event."""
        while len(self.ledger.records) < number:
            client = len(self.ledger.records) % CLIENTS
            actions, seconds = measured(
                lambda c=client: self._handle(ClientAsks(b"%d" % c, wire.ANY))
            )
            yield seconds
            solve = next(a.message for a in actions if isinstance(a, SendClient))
            assert isinstance(solve, wire.Solve)
            simulation = solve.simulation
            self.rank.remember((simulation, step) for step in range(self.steps))
            losses = tuple((simulation, 1.0 + step / self.steps, 0.0) for step in range(self.steps))
            end = AttemptReport(simulation, solve.attempt, self.steps, self.steps)
            report = RankReport(0, first_pass=losses, finalized=(end,))
            actions, seconds = measured(lambda r=report: self._handle(r))
            yield seconds
            for action in actions:
                if isinstance(action, SendRank) and action.message["type"] == "closed":
                    self.rank.close(simulation, solve.attempt)
                    self.rank.settle(simulation)
            if client == 0:
                self._handle(LauncherHeard())
                _, seconds = measured(lambda: self._handle(Tick()))
                yield seconds

    def state(self) -> dict[str, Any]:
        """Returns what rank 0 collects for a checkpoint while it holds its lock."""
        return {"ledger": self.ledger.state(), "proposals": self.queue.state()}

    def end(self, folder: Path) -> list[str]:
        """Ends the run; returns how long the lines of the result and the next server take."""
        self.queue.close()
        began = time.perf_counter()
        parameters = study_parameters(self._study.parameters)
        for record in self.ledger.records:
            record.line(parameters, self.queue.difficulty(record.simulation))
        lines = time.perf_counter() - began
        state = read_state(folder / "one.partial", STATE)
        began = time.perf_counter()
        ledger = self._records()
        ledger.restore(state["ledger"])
        self.queue.restore(state["proposals"], ledger.records)
        restored = time.perf_counter() - began
        assert ledger.counts() == self.ledger.counts()
        return [
            f"lines of simulations.jsonl: {lines:.1f} s",
            f"restored by the next server: {restored:.1f} s",
        ]

    def _handle(self, event: Any) -> list[Any]:
        return self.machine.handle(event, Moment(time.monotonic(), time.time()))


def measured(call: Any) -> tuple[Any, float]:
    """Returns what a call returns, and the CPU seconds of this thread."""
    began = time.thread_time()
    found = call()
    return found, time.thread_time() - began


def statistics_of(seconds: Iterator[float]) -> tuple[float, float]:
    """Returns mean and maximum; the values are not kept."""
    total = longest = 0.0
    count = 0
    for one in seconds:
        total, longest, count = total + one, max(longest, one), count + 1
    return total / count, longest


def write(folder: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint of rank 0, as its thread does after the lock is released."""
    write_state(begin_checkpoint(folder / "one"), STATE, state)


if __name__ == "__main__":
    main()
