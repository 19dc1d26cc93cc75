"""The control of a run as a state machine: events in, actions out.

`ControlMachine.handle` takes one event and the time, changes the state, and returns the actions to carry out in order.
It uses no socket, thread, clock or file, so that a test drives a run through any fault in microseconds. The control
thread owns these (`melissa_gen.server.coordination.control_thread`).

The life of a simulation:

1. The machine takes a proposal from its source when a client requests a simulation and none waits for a retry. In
   per-simulation mode it takes proposals ahead, because a job is started for a given simulation. Every server rank is
   sent the parameters (`assigned`).
2. The simulation is issued to a client as its next attempt. The client sends fields to the server ranks, not to this
   machine.
3. The attempt ends for one of these reasons:

   - all server ranks have reported what they received, and it is complete: the simulation is finished;
   - the reports are incomplete, or the job was lost: the simulation is retried, at most `simulation.retries` times, and
     not if another one has failed in the same way and none has ever finished;
   - the client has reported that the solver failed: the simulation is dropped, because a retry would fail as well.

   The server ranks are sent the end of each attempt (`closed`) and ignore data of that attempt from then on.
4. When no simulation is unfinished, the server ranks are sent `reception_over`.

A job is lost when the launcher reports its end, when no heartbeat arrives, or when it makes no progress. The job may
have sent everything before its end, so an attempt is closed only when the reports of the server ranks have had time to
arrive. The launcher is sent what should be running (`want`) after each change; it starts and ends the processes.
"""

from collections.abc import Mapping
from typing import Any, assert_never

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from melissa_gen.protocol.refusals import Refusals
from melissa_gen.server.coordination.action_list import ActionList
from melissa_gen.server.coordination.client_jobs import ClientJobs
from melissa_gen.server.coordination.draining import DrainingAttempts
from melissa_gen.server.coordination.events import (
    Action,
    ClientAsks,
    ClientFailed,
    ClientHello,
    Event,
    FailureReported,
    ForgetJob,
    HandoverRequested,
    JobEnded,
    JobsWaiting,
    LastReportsReceived,
    LauncherHeard,
    LauncherHello,
    MessageRefused,
    Moment,
    Pulse,
    RankHello,
    RankReport,
    ReportFailure,
    SamplerFailed,
    ServerEnds,
    StopClients,
    StopRequested,
    Tick,
    WithholdCredit,
)
from melissa_gen.server.coordination.ledger import AttemptOutcome, Ledger, SimulationRecord
from melissa_gen.server.coordination.proposals import ProposalSource, assignment
from melissa_gen.server.coordination.repeated_faults import RepeatedFaults
from melissa_gen.server.coordination.settings import ControlSettings
from melissa_gen.server.coordination.upcoming import UpcomingSimulations
from melissa_gen.server.coordination.watchdog import Watchdog

__all__ = ["REFUSAL_SECONDS", "ControlMachine"]

REFUSAL_SECONDS = 60.0
"""Interval between two events about refused messages of the same kind."""


class ControlMachine:
    """Decides what clients, server ranks and launcher do.

    Args:
        settings: Settings of the run.
        ledger: The state of all simulations. Only the machine and its parts change it.
        proposals: Source of the parameters of new simulations.
    """

    def __init__(
        self, settings: ControlSettings, ledger: Ledger, proposals: ProposalSource
    ) -> None:
        self._settings, self._timeouts = settings, settings.timeouts
        self._ledger, self._proposals = ledger, proposals
        self._now = Moment(0.0, 0.0)
        # Actions of the event that is being handled.
        self._actions = ActionList()

        # Why the run stops before it is complete. Never changes once set.
        self._stop_reason: str | None = None
        # Whether the next server process continues the run. May be set only before or with the stop reason; a request
        # to stop resets it.
        self._handing_over = False
        # Whether `reception_over` was sent. Set once, when no simulation is unfinished.
        self._reception_over = False
        # Whether the failure of the sampler was reported.
        self._sampler_failure = ""

        # Refused messages that the event log does not contain yet.
        self._refusals = Refusals(REFUSAL_SECONDS, lambda: self._now.monotonic)

        # Time of the last message of the launcher; before the first one, of the first event.
        self._launcher_heard: float | None = None
        self._launcher_connected = False

        # Server ranks that have connected, and those that have sent their last report. Both only grow.
        self._ranks: set[int] = set()
        self._finished_ranks: set[int] = set()
        # Number of samples that each server rank could not store at its last report.
        self._pending: dict[int, int] = {}

        self._jobs = ClientJobs()
        self._upcoming = UpcomingSimulations(
            ledger,
            proposals,
            settings.clients,
            settings.welcome.server_ranks,
            announce=lambda record: self._send_owner(record, assignment(record)),
        )
        # Attempts whose job has ended while reports may still arrive.
        self._draining = DrainingAttempts(ledger, settings.timeouts.exit_grace)
        self._faults = RepeatedFaults(
            settings.identical_failures, finished=ledger.counts()["completed"] > 0
        )
        self._watchdog = Watchdog(settings.timeouts.stall, settings.timeouts.progress)

    @property
    def stop_reason(self) -> str | None:
        """The reason why the run stops before it is complete, or None."""
        return self._stop_reason

    @property
    def handing_over(self) -> bool:
        """Whether the next server process continues the run."""
        return self._handing_over

    @property
    def ranks_finished(self) -> bool:
        """Whether all server ranks that have connected have sent their last report."""
        return self._ranks <= self._finished_ranks

    @property
    def jobs_waiting(self) -> JobsWaiting:
        """Client jobs that have not connected."""
        return self._watchdog.jobs

    def handle(self, event: Event, now: Moment) -> list[Action]:
        """Handles one event.

        Args:
            event: What happened.
            now: When it happened. Must not decrease.

        Returns:
            The actions to carry out, in this order.
        """
        self._now = now
        if self._launcher_heard is None:
            self._launcher_heard = now.monotonic
        self._actions = ActionList()
        try:
            self._dispatch(event)
        except ProtocolError as error:
            client = event.client if isinstance(event, ClientHello | ClientAsks) else None
            cause = error.args[0] if isinstance(error.args[0], Failure) else None
            self._refuse(MessageRefused("control", str(error), client=client, failure=cause))
        return self._actions.all()

    def _dispatch(self, event: Event) -> None:
        match event:
            case ClientHello():
                self._welcome(event)
            case ClientAsks():
                self._answer(event)
            case ClientFailed():
                self._give_up(event)
            case RankHello():
                self._connect_rank(event.rank)
            case RankReport():
                self._handle_report(event)
            case LauncherHello():
                self._launcher_connected = True
                self._launcher_heard = self._now.monotonic
                self._send_want()
            case LauncherHeard():
                self._launcher_heard = self._now.monotonic
            case JobsWaiting():
                self._watchdog.set_jobs(event)
            case JobEnded():
                self._handle_job_end(event)
            case StopRequested():
                self._handing_over = False
                self._stop(event.reason)
            case HandoverRequested():
                self._handing_over |= self._stop_reason is None
                self._stop(event.reason)
            case FailureReported():
                self._stop(event.reason)
            case SamplerFailed():
                self._warn_of_sampler(event.reason)
            case MessageRefused():
                self._refuse(event)
            case ServerEnds():
                self._write_refusals(last=True)
            case Tick():
                self._write_refusals()
                self._check_timeouts(event.pulses)
            case _:
                assert_never(event)

    # Clients.

    def _welcome(self, event: ClientHello) -> None:
        """Accepts a client job if its number of MPI ranks is that of the study."""
        processes = self._settings.processes
        if event.ranks != processes:
            raise ProtocolError(
                Failure.of("wrong_ranks", job=event.job, ranks=event.ranks, processes=processes)
            )
        self._refuse_ended(event.job)
        self._jobs.connect(event.client, event.job, self._now.monotonic)
        self._actions.send_client(event.client, self._settings.welcome)
        self._actions.write_event(
            "client_connected",
            job=event.job,
            host=event.host,
            pid=event.pid,
            ranks=event.ranks,
        )

    def _answer(self, event: ClientAsks) -> None:
        """Issues a simulation to a client, or sends it the reason why it gets none."""
        job = self._jobs.job_of(event.client)
        if job is None:
            text = "a client that asks for a simulation before it has said hello"
            raise ProtocolError(text)
        # The launcher counts a job as connected here, not at its hello: a job that then can't declare its fields
        # would be started again and again.
        self._actions.send_launcher({"type": "connected", "job": job})
        if self._stop_reason is not None:
            self._actions.send_client(event.client, wire.Stop(self._stop_reason))
            return
        record = self._upcoming.take(event.simulation, self._jobs.last_issued(job))
        if record is None:
            self._actions.send_client(event.client, wire.Done())
            return
        attempt = self._ledger.issue(record, job, self._now.unix)
        self._jobs.issue(job, record.simulation)
        self._proposals.register(record)
        self._actions.send_client(
            event.client, wire.Solve(record.simulation, attempt, record.parameters)
        )
        self._actions.write_event(
            "simulation_issued",
            simulation=record.simulation,
            attempt=attempt,
            job=job,
            parameters=wire.named_values(self._settings.welcome.parameters, record.parameters),
            method=record.method,
            generation=record.generation,
        )

    def _give_up(self, event: ClientFailed) -> None:
        """Drops the simulation that a client has given up, or reports a client with wrong declarations once."""
        if event.simulation >= 0:
            outcome = self._ledger.failed(
                event.simulation, event.attempt, event.failure, self._now.unix, retry=False
            )
            self._end_attempt(outcome)
        elif self._jobs.fail(event.job):
            self._actions.write_event(
                "client_failed", forward=True, job=event.job, **event.failure.record()
            )

    def _refuse_ended(self, job: str) -> None:
        """Refuses a message that a job has sent before its end and that arrives after the launcher's report.

        A simulation issued to such a job would run forever: its end is not reported a second time.
        """
        if self._jobs.ended(job):
            text = f"a client of job {job}, which has ended"
            raise ProtocolError(text)

    # Server ranks.

    def _connect_rank(self, rank: int) -> None:
        """Sends a server rank what it would have been sent before, of its simulations that are not over."""
        self._ranks.add(rank)
        for record in (*self._ledger.running(), *self._ledger.waiting()):
            if self._owner(record) == rank:
                self._actions.send_rank(rank, assignment(record))
        if self._stop_reason is not None:
            self._actions.send_rank(rank, {"type": "stop", "reason": self._stop_reason})
        if self._reception_over:
            self._actions.send_rank(rank, {"type": "reception_over"})

    def _handle_report(self, report: RankReport) -> None:
        self._actions.add(*self._watchdog.report(report, self._now.monotonic))
        self._pending[report.rank] = report.pending
        self._actions.add(WithholdCredit(self._credit_withheld))
        if report.last:
            self._finished_ranks.add(report.rank)
        self._proposals.add_losses(report.first_pass)
        for ended in report.finalized:
            self._end_attempt(
                self._ledger.finalized(
                    ended.simulation,
                    ended.attempt,
                    ended.steps,
                    ended.complete,
                    self._now.unix,
                    ended.fault,
                )
            )
        if self.ranks_finished:
            self._actions.add(LastReportsReceived())
        for refused in report.refused:
            self._refuse(refused)

    @property
    def _credit_withheld(self) -> bool:
        """Whether clients may have to wait for credit because a reservoir has no room."""
        return any(self._pending.values())

    # Jobs.

    def _handle_job_end(self, event: JobEnded) -> None:
        job, now = event.job, self._now.unix
        self._launcher_heard = self._now.monotonic
        self._actions.add(ForgetJob(job, self._jobs.end(job)))
        failure = Failure.of("process_ended", exit_status=event.exit_code).with_details(
            f"its log {job}.log ends: {event.ending}" if event.ending else ""
        )
        self._detach_job(job, failure, failed=event.exit_code != 0)
        asked = self._jobs.forget_issued(job)
        simulation = event.simulation
        if not asked and simulation is not None and simulation < self._ledger.drawn:
            self._end_attempt(self._ledger.never_started(simulation, failure, now))
        self._send_want()

    def _detach_job(self, job: str, failure: Failure, *, failed: bool) -> None:
        """Gives up the attempts of a job that has ended or will be killed.

        The attempt that a failed job was solving is lost at once. The job had solved its other attempts, so these get
        time until the reports of the server ranks have arrived. If data of such an attempt was lost with the process,
        another simulation was the cause: the retries of the solved simulation are not charged.
        """
        # A stopping run issues nothing any more.
        if self._stop_reason is not None:
            return
        for record in self._ledger.of_job(job):
            if failed and self._jobs.solves(job, record.simulation):
                self._lose_attempt(record, failure)
            else:
                self._draining.add(record, failure, self._now.monotonic, charged=not failed)

    def _lose_attempt(
        self, record: SimulationRecord, failure: Failure, *, charged: bool = True
    ) -> None:
        at, now = (record.simulation, record.attempt), self._now.unix
        retry = not (charged and self._faults.permanent(record.simulation, failure))
        outcome = self._ledger.failed(*at, failure, now, retry=retry, charged=charged)
        self._actions.write_event(
            "client_lost", job=record.job, simulation=record.simulation, reason=str(failure)
        )
        self._end_attempt(outcome, charged=charged)

    def _end_attempt(self, outcome: AttemptOutcome | None, *, charged: bool = True) -> None:
        """Announces the end of an attempt; None stands for a report that changed nothing."""
        if outcome is None:
            return
        record = outcome.record
        self._draining.discard(record.simulation)
        over = outcome.finished or outcome.dropped
        at = {"simulation": record.simulation, "attempt": record.attempt}
        self._send_owner(record, {"type": "closed", **at, "over": over})
        if over:
            # The sampler does not know a simulation that was not issued to a client, nor its run time.
            self._proposals.register(record)
        if outcome.finished:
            self._faults.finished()
            self._actions.write_event("simulation_finished", **outcome.event_fields())
        else:
            self._actions.write_event("simulation_failed", forward=True, **outcome.event_fields())
            if charged and outcome.failure is not None:
                self._check_fault(record.simulation, outcome.failure)
        self._send_want()

    def _check_fault(self, simulation: int, failure: Failure) -> None:
        """Fails the run if a fault is the same in each simulation."""
        reason = self._faults.add(simulation, failure)
        if reason is not None and self._stop_reason is None:
            self._actions.add(ReportFailure(reason))

    def _send_want(self) -> None:
        """Sends the launcher what should be running."""
        message: dict[str, Any] = {"type": "want", "ended": self._jobs.end_reports}
        if self._stop_reason is not None:
            message["clients"], message["simulations"] = 0, []
        elif self._settings.per_simulation:
            message["simulations"] = self._upcoming.wanted_simulations()
        else:
            message["clients"] = self._upcoming.wanted_clients(self._jobs.connected)
        self._actions.send_launcher(message)

    # The run.

    def _stop(self, reason: str) -> None:
        """Stops the run before it is complete: clients get no more work, server ranks leave their loops."""
        if self._stop_reason is not None:
            return
        self._stop_reason = reason
        self._actions.add(StopClients(reason))
        self._actions.write_event("stopping", reason=reason)
        kind = "leaving" if self._handing_over else "stopping"
        self._actions.send_launcher({"type": kind, "reason": reason})
        self._send_ranks({"type": "stop", "reason": reason})
        self._send_want()

    def _check_timeouts(self, pulses: Mapping[str, Pulse]) -> None:
        self._check_launcher()
        if self._jobs.check_due(self._now.monotonic):
            for job, pulse in pulses.items():
                self._check_job(job, pulse)
            patience = self._timeouts.heartbeat
            for job in self._jobs.unheard(pulses.keys(), self._now.monotonic - patience):
                self._kill(job, Failure.of("silent", seconds=round(patience)))
        for lost in self._draining.lost(self._now.monotonic, withheld=self._credit_withheld):
            self._lose_attempt(lost.record, lost.failure, charged=lost.charged)
        if self._ledger.unfinished == 0 and not self._reception_over:
            self._reception_over = True
            self._actions.write_event("reception_over")
            self._send_ranks({"type": "reception_over"})
        if self._stop_reason is None and not self.ranks_finished:
            ended = (self._ledger.drawn, self._ledger.unfinished, self._jobs.end_reports)
            jobs = self._jobs.connected
            self._actions.add(*self._watchdog.check(ended, jobs, pulses, self._now.monotonic))

    def _check_launcher(self) -> None:
        assert self._launcher_heard is not None
        silence = self._now.monotonic - self._launcher_heard
        reason = self._timeouts.launcher_lost(silence, connected=self._launcher_connected)
        if reason is not None:
            self._stop(reason)

    def _check_job(self, job: str, pulse: Pulse) -> None:
        if self._jobs.killed(job):
            return
        failure = self._timeouts.exceeded(pulse, self._now.monotonic)
        if failure is not None:
            self._kill(job, failure)

    def _kill(self, job: str, failure: Failure) -> None:
        self._jobs.kill(job)
        self._detach_job(job, failure, failed=True)
        self._actions.send_launcher({"type": "kill", "job": job, "reason": str(failure)})

    def _warn_of_sampler(self, reason: str) -> None:
        if reason != self._sampler_failure:
            self._sampler_failure = reason
            text = (
                "the sampler failed; draws from the prior replace this generation, and it tries again at the next "
                f"one: {reason}"
            )
            self._actions.write_event("warning", forward=True, message=text)

    def _refuse(self, event: MessageRefused) -> None:
        self._refusals.add(event.source, event.reason, event.count, event.failure)
        self._write_refusals()
        if event.client is not None:
            self._actions.send_client(event.client, wire.Refused(event.reason))

    def _write_refusals(self, *, last: bool = False) -> None:
        """Writes the refusals of each kind at once when they are new, and then their number at intervals."""
        for refusal in self._refusals.take(last=last):
            failure = refusal.failure
            reason = {"reason": refusal.reason} if failure is None else failure.record()
            self._actions.write_event(
                "refused", forward=True, what=refusal.source, **reason, count=refusal.count
            )

    def _send_ranks(self, message: Mapping[str, Any]) -> None:
        for rank in sorted(self._ranks):
            self._actions.send_rank(rank, message)

    def _send_owner(self, record: SimulationRecord, message: Mapping[str, Any]) -> None:
        """Sends a message to the server rank that all samples of a simulation belong to."""
        if (rank := self._owner(record)) in self._ranks:
            self._actions.send_rank(rank, message)

    def _owner(self, record: SimulationRecord) -> int:
        return wire.owner(record.simulation, self._settings.welcome.server_ranks)
