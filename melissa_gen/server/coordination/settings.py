"""Settings and timeouts of the control machine and its thread."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from melissa_gen.distributions import Parameter
from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.events import Pulse
from melissa_gen.study import FieldSection, InputSection, Study

__all__ = [
    "ControlSettings",
    "ControlTimeouts",
    "control_settings",
    "study_fields",
    "study_parameters",
]

_HEARTBEATS = 2000
"""Most heartbeats of clients in a second."""
_GRACE_OF_A_CLIENT = 0.03
"""Seconds that the server may take for the end of each client, when all end at once on a busy machine."""


@dataclass(frozen=True)
class ControlTimeouts:
    """Timeouts and intervals in seconds.

    Attributes:
        heartbeat: Longest time without a message of the launcher or of a client job, before it counts as lost.
        progress: Longest time that a client job may stay in one time step.
        stall: Longest time without any progress of the run while no other timeout runs.
        launcher: Longest wait for the launcher's first message.
        exit_grace: Wait for the reports of a simulation whose job has ended: data may still be in flight.
        last_reports: Longest wait for the last reports of all server ranks.
        poll: Longest wait for messages between two ticks.
        status: Interval between two `status` events.
    """

    heartbeat: float = 20.0
    progress: float = 600.0
    stall: float = 600.0
    launcher: float = 60.0
    exit_grace: float = 3.0
    last_reports: float = 5.0
    poll: float = 0.1
    status: float = 1.0

    def exceeded(self, pulse: Pulse, now: float) -> Failure | None:
        """Returns the reason why a client job counts as lost, or None.

        Args:
            pulse: The last heartbeat of the job.
            now: Monotonic seconds.
        """
        silence, stuck = now - pulse.heard, now - pulse.progressed
        if silence > self.heartbeat:
            return Failure.of("silent", seconds=round(silence))
        if stuck > self.progress:
            where = {"simulation": pulse.beat.simulation, "step": pulse.beat.step}
            return Failure.of("no_progress", **where, seconds=round(stuck))
        return None

    def launcher_lost(self, silence: float, *, connected: bool) -> str | None:
        """Returns the reason why the launcher counts as lost, or None.

        Args:
            silence: Seconds since its last message, or since the start.
            connected: Whether it has connected.
        """
        if not connected and silence > self.launcher:
            return f"no launcher has connected for {silence:.0f} s"
        if connected and silence > self.heartbeat:
            return f"the launcher has been silent for {silence:.0f} s"
        return None


@dataclass(frozen=True)
class ControlSettings:
    """Settings of a run that the control machine needs.

    Attributes:
        welcome: The server's answer to a client's hello.
        processes: MPI ranks that each client job must have.
        clients: Client jobs that may run at the same time.
        per_simulation: Whether each client job solves one simulation that is chosen when the job is started.
        timeouts: Timeouts.
        identical_failures: Simulations that may fail in the same way before the run fails.
    """

    welcome: wire.Welcome
    processes: int
    clients: int
    per_simulation: bool = False
    timeouts: ControlTimeouts = field(default_factory=ControlTimeouts)
    identical_failures: int = 5


def study_parameters(parameters: Mapping[str, Parameter]) -> tuple[wire.StudyParameter, ...]:
    """Returns the names and types of the parameters, as the server announces them to its clients."""
    return tuple(
        wire.StudyParameter(name, "integer" if one.whole else "real")
        for name, one in parameters.items()
    )


def study_fields(
    sections: Mapping[str, FieldSection] | Mapping[str, InputSection],
) -> tuple[wire.StudyField, ...]:
    """Returns names, types and shapes of fields or inputs, as the server announces them to its clients."""
    return tuple(
        wire.StudyField(name, section.dtype, tuple(section.shape))
        for name, section in sections.items()
    )


def _exit_grace(clients: int, longest: float) -> float:
    """Returns the wait for the reports on a simulation whose job has ended; longer if many jobs end at once."""
    shortest = ControlTimeouts.exit_grace
    return max(shortest, min(clients * _GRACE_OF_A_CLIENT, longest))


def control_settings(study: Study) -> ControlSettings:
    """Returns the settings of a study."""
    simulation, server = study.simulation, study.server
    rarest = max(server.heartbeat, server.heartbeat_timeout / 4)
    heartbeat = min(max(server.heartbeat, study.launcher.clients / _HEARTBEATS), rarest)
    welcome = wire.Welcome(
        *study.flow,
        server.ranks,
        simulation.time_steps,
        server.chunk_latency,
        heartbeat,
        server.heartbeat_timeout,
        study_parameters(study.parameters),
        study_fields(simulation.fields),
        study_fields(simulation.inputs),
    )
    return ControlSettings(
        welcome,
        simulation.processes,
        study.launcher.clients,
        per_simulation=simulation.mode == "per_simulation",
        timeouts=ControlTimeouts(
            heartbeat=server.heartbeat_timeout,
            exit_grace=_exit_grace(study.launcher.clients, server.heartbeat_timeout),
            progress=simulation.timeout,
            stall=server.progress_timeout,
        ),
        identical_failures=simulation.identical_failures,
    )
