"""The solver of probe.c in Python, with the same modes and output; exceptions replace error codes."""

import sys

import numpy as np

from melissa_gen.client import Client
from melissa_gen.errors import ClientError, ServerLost, SimulationError

MODE = sys.argv[1] if len(sys.argv) > 1 else "good"


def code(error):
    kinds = {SimulationError: 2, ServerLost: 3, ClientError: 1}
    return next(number for kind, number in kinds.items() if isinstance(error, kind))


def declare(client):
    shape = (4, 7 if MODE == "wrong-shape" else 6)
    client.field("aa" if MODE == "unknown-field" else "a", shape, dtype="float64")
    if MODE == "outside":
        client.field("a", shape, start=(2, 0), extent=shape)
    if MODE != "undeclared":
        block = {"start": (3,), "extent": (0,)} if MODE == "no-part" else {}
        client.field("b", (3,), dtype="float32", **block)
    if MODE.startswith("input"):
        client.field("k", (1 << 16, 1 << 16) if MODE == "input-large" else (2, 3))


def fields(number, step, p):
    a = 1000.0 * number + 100.0 * step + np.arange(24.0).reshape(4, 6)
    b = np.full(3, p + step, np.float32)
    if MODE == "nan" and number == 1 and step == 2:
        a[0, 3:5] = np.nan, np.inf
    if MODE == "overflow":
        a[0, 0] = 1e300
    if MODE == "wrong-count":
        a = a.ravel()[:23]
    if MODE == "no-part":
        b = b[:0]
    if MODE == "strided":
        halo, wide = np.full((6, 8), np.nan, order="F"), np.full(6, np.nan, np.float32)
        halo[1:5, 1:7], wide[1::2] = a, b
        a, b = halo[1:5, 1:7], wide[::-2]
    if MODE == "unknown-send":
        return {"c": a}
    return {"a": a} if MODE == "half-step" and step == 2 else {"a": a, "b": b}


def send_input(simulation):
    """Sends the input k, once unless the mode says otherwise."""
    k = 10.0 * simulation.number + np.arange(6.0).reshape(2, 3)
    if MODE == "input-nan":
        k[1, 1] = np.nan
    simulation.send_inputs(k=k.ravel()[:5] if MODE == "input-count" else k)
    if MODE == "input-twice":
        simulation.send_inputs(k=k)


def solve(simulation):
    p = simulation.parameters["p"]
    q = simulation.parameters["r" if MODE == "unknown-parameter" else "q"]
    if MODE == "integer" and isinstance(q, int):
        print("q", q)
    for step in range({"short": 2, "too-many": 4}.get(MODE, 3)):
        if MODE == "fail" and simulation.number == 0 and step == 1:
            simulation.fail("diverged")
            return
        due = step == 0 or MODE == "input-late"
        if MODE.startswith("input") and MODE != "input-missing" and due:
            send_input(simulation)
        simulation.send(**fields(simulation.number, step, p))
        while MODE == "stuck":
            pass


def loop(client):
    declare(client)
    for simulation in client:
        try:
            solve(simulation)
        except SimulationError as error:
            if MODE != "nan":
                raise
            # All ranks continue with the next simulation.
            print(code(error), error)
        if MODE in ("leave", "leave-early"):
            return


def main():
    status, said = 0, "no error"
    try:
        with Client() as client:
            loop(client)
    except (ClientError, ServerLost, SimulationError) as error:
        status, said = code(error), str(error)
    print(status, said)
    print("closed", 0 if MODE != "leave-early" else status)
    return status


if __name__ == "__main__":
    sys.exit(main())
