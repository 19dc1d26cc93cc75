"""A fault that is the same in each simulation ends a run instead of being tried again for each of them."""

import pytest

from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.repeated_faults import RepeatedFaults


def died(status=1, ending="ModuleNotFoundError: No module named 'mesh'"):
    return Failure.of("process_ended", exit_status=status).with_details(f"its log ends: {ending}")


def nan(simulation, step=3):
    where = {"simulation": simulation, "step": step}
    found = {"count": simulation + 1, "place": [simulation, 2], "dtype": "float32"}
    return Failure.of("not_finite", **where, field="u", **found)


def test_so_many_simulations_that_fail_alike_end_a_run_with_the_reason():
    faults = RepeatedFaults(3)
    assert faults.add(0, died()) is None
    assert faults.add(0, died()) is None
    assert faults.add(1, died()) is None
    reason = faults.add(2, died())
    assert reason.startswith("3 simulations have failed in the same way and none has finished")
    assert reason.endswith(
        "(simulation.identical_failures is 3); the last one, simulation 2: its process ended with exit status 1; "
        "its log ends: ModuleNotFoundError: No module named 'mesh'"
    )


def test_numbers_in_the_text_do_not_matter_but_the_step_does():
    faults = RepeatedFaults(2)
    assert faults.add(0, died(ending="residual 1.5e-3 at step 4")) is None
    assert faults.add(1, died(ending="residual 20 at step 7")) is not None
    assert faults.add(0, nan(0)) is None
    assert faults.add(1, nan(1, step=4)) is None
    assert faults.add(2, nan(2)) is not None


def test_another_attempt_is_useless_once_another_simulation_has_failed_alike():
    faults = RepeatedFaults(5)
    faults.add(0, died())
    assert not faults.permanent(0, died()), "the first simulation alone may have had bad luck"
    assert faults.permanent(1, died())
    assert not faults.permanent(1, died(status=2))
    faults.finished()
    faults.add(2, died())
    assert not faults.permanent(3, died()), "the solver has worked once"


def test_a_run_with_finished_simulations_bears_ten_times_as_many_in_a_row():
    faults = RepeatedFaults(2, finished=True)
    assert not any(faults.add(n, died()) for n in range(19))
    faults.finished()
    assert not any(faults.add(n, died()) for n in range(19))
    assert "in a row" in faults.add(19, died())


@pytest.mark.parametrize(
    "failure",
    [
        died(137),
        died(143),
        died(-15),
        Failure.of("command_killed", signal=9),
        Failure.of("lost_steps", received=1, time_steps=2),
    ],
    ids=str,
)
def test_what_may_come_from_outside_does_not_count(failure):
    faults = RepeatedFaults(1)
    assert faults.add(0, failure) is None
    assert not faults.permanent(1, failure)


@pytest.mark.parametrize("failure", [died(9), Failure.of("command_ended", exit_status=15)])
def test_an_exit_status_that_is_the_number_of_a_signal_counts(failure):
    faults = RepeatedFaults(2)
    assert faults.add(0, failure) is None
    assert faults.add(1, failure) is not None


def test_an_exit_status_of_any_type_is_a_fault():
    faults = RepeatedFaults(2)
    odd = Failure.received("process_ended", '{"exit_status": [1]}')
    assert faults.add(0, odd) is None
    assert faults.add(1, odd) is not None
