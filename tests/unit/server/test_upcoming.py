"""Which simulation a client gets next."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.ledger import Ledger
from melissa_gen.server.coordination.proposals import Proposal
from melissa_gen.server.coordination.upcoming import UpcomingSimulations

STEPS = 3


class Points:
    """Draws simulation n at n."""

    failure = None

    def __init__(self):
        self.taken = 0

    def take(self):
        self.taken += 1
        return Proposal((float(self.taken - 1),), "prior")


def solved_by(clients, ranks, count, order):
    """Lets clients ask in an order; returns the simulations of each, and the most that were drawn ahead."""
    ledger, points = Ledger(count, STEPS, 0), Points()
    upcoming = UpcomingSimulations(ledger, points, clients, ranks, announce=lambda record: None)
    solved, ahead = defaultdict(list), 0
    for client in order:
        last = solved[client][-1] if solved[client] else None
        record = upcoming.take(wire.ANY, last)
        if record is None:
            continue
        attempt = ledger.issue(record, f"client-{client}", 0.0)
        ahead = max(ahead, ledger.waiting_count)
        ledger.finalized(record.simulation, attempt, STEPS, STEPS, 1.0)
        solved[client].append(record.simulation)
    return solved, ahead


def test_a_client_stays_with_the_server_rank_of_its_first_simulation():
    clients, ranks = 16, 4
    solved, _ = solved_by(clients, ranks, 160, [*range(clients)] * 9)
    for simulations in solved.values():
        assert len(simulations) == 9
        assert len({wire.owner(one, ranks) for one in simulations}) == 1


@given(st.lists(st.integers(0, 15), max_size=200))
def test_every_simulation_is_solved_once_and_few_are_drawn_ahead(order):
    clients, ranks, count = 16, 4, 60
    solved, ahead = solved_by(clients, ranks, count, [*order, *range(clients), *[0] * count])
    found = [one for simulations in solved.values() for one in simulations]
    assert sorted(found) == list(range(count))
    assert ahead <= ranks


@pytest.mark.parametrize(("clients", "ranks"), [(2, 2), (7, 2), (4, 1)])
def test_few_clients_get_the_simulations_in_the_order_of_the_sampler(clients, ranks):
    ledger, points = Ledger(20, STEPS, 0), Points()
    upcoming = UpcomingSimulations(ledger, points, clients, ranks, announce=lambda record: None)
    last = None
    for expected in range(20):
        record = upcoming.take(wire.ANY, last)
        assert record.simulation == expected and points.taken == expected + 1
        ledger.issue(record, "client-0", 0.0)
        last = expected
