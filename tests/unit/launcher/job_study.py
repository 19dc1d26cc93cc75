"""A study for tests of the job machine: it sends events and keeps the actions."""

from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.launcher.jobs.machine import (
    Limits,
    SendToServer,
    ServerReady,
)

LIMITS = Limits(clients=3, server_start=100, connect=50, stop=60, exit=10, kill=5)


class Study:
    """Drives the machine and keeps all of its actions."""

    def __init__(self, limits=LIMITS, ready=True):
        self.state, self.actions = jobs.begin(limits, now=0.0)
        if ready:
            self(ServerReady())

    def __call__(self, *events):
        new = []
        for event in events:
            self.state, actions = jobs.step(self.state, event)
            new += actions
        self.actions += new
        return new


def kinds(actions):
    return [type(action) for action in actions]


def told(actions):
    return [action.message for action in actions if isinstance(action, SendToServer)]
