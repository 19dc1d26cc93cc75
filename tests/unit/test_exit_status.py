"""What an exit status says: the signal that has ended a rank, and its usual cause."""

import pytest

from melissa_gen.exit_status import status_of_job, status_with_cause, was_ended_from_outside

HYDRA = """\
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 2412 RUNNING AT node-3
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
===================================================================================
"""
KILLED = """\
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
This typically refers to a problem with your application.
Please see the FAQ page for debugging suggestions
"""
INTEL = """\
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   RANK 0 PID 2412 RUNNING AT node-3
=   KILLED BY SIGNAL: 9 (Killed)
===================================================================================
"""


@pytest.mark.parametrize(
    ("code", "output", "status"),
    [
        (9, HYDRA + KILLED, 137),
        (9, INTEL, 137),
        (9, HYDRA, 9),
        (9, "", 9),
        (1, HYDRA + KILLED, 1),
        (0, KILLED, 0),
        (137, "", 137),
        (-9, KILLED, -9),
    ],
)
def test_a_signal_that_has_ended_a_rank_is_told_from_an_exit_status(code, output, status):
    assert status_of_job(code, output.splitlines()) == status


def test_only_a_signal_kills():
    assert {code for code in range(-64, 256) if "memory" in status_with_cause(code)} == {-9, 137}
    assert {code for code in range(-64, 256) if was_ended_from_outside(code)} == {
        *(-9, -15),
        *(137, 143),
    }
