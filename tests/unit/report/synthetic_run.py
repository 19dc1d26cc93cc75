"""Writes a run directory as a server would have left it, without running anything."""

import json
from pathlib import Path

import numpy as np

from melissa_gen.run_dir.events import EventLog

PARAMETERS = {
    "initial": ("uniform", 100.0, 500.0, "K"),
    "west": ("uniform", 100.0, 500.0, "K"),
    "east": ("uniform", 100.0, 500.0, "K"),
    "north": ("uniform", 100.0, 500.0, "K"),
    "diffusivity": ("log_uniform", 1e-3, 1e-1, "m^2/s"),
}
STEPS = 100
START = 1_760_000_000.0


class _Clock(EventLog):
    """An event log whose events have the times we say."""

    def at(self, moment: float, kind: str, /, **fields: object) -> None:
        self.write(kind, **{**fields, "time": START + moment})


def write_run(
    path: Path,
    study: str = "heat",
    simulations: int = 240,
    seconds: int = 900,
    ranks: int = 2,
    parameters: int = 5,
    shape: tuple[int, ...] = (48, 48),
    adds_up: bool = True,
    seed: int = 1,
) -> Path:
    """Writes every file that the report reads; the numbers are plausible and consistent."""
    path.mkdir(parents=True)
    random = np.random.default_rng(seed)
    names = [list(PARAMETERS)[i] if i < 5 else f"p{i}" for i in range(parameters)]
    points, difficulty, generation, adaptive = _points(random, simulations, parameters)
    failed = {int(place) for place in random.choice(simulations, 3, replace=False)}
    _write_study(path, study, names, simulations, ranks)
    _write_simulations(path, names, points, difficulty, generation, adaptive, failed, seconds)
    samples = _write_events(path, study, simulations, seconds, ranks, failed, random)
    errors = 0.012 * np.exp(0.6 * random.standard_normal(200)) * (1 + 3 * random.random(200) ** 12)
    _write_cases(path, names, points, errors, shape, random)
    if not adds_up:
        samples["lost"] += 7
    summary = {
        "status": "finished",
        "study": study,
        "wall_seconds": float(seconds),
        "setup_seconds": 6.4,
        "simulations": {
            "planned": simulations,
            "completed": simulations - 2,
            "failed": 2,
            "retried": 3,
        },
        "samples": samples,
        "waiting": {"trainer_for_data": 0.04, "clients_for_credit": 0.2},
        "bottleneck": "training",
        "training": {
            "batches": 12 * seconds,
            "samples_drawn": 12 * seconds * 64,
            "final_loss": 3.1e-4,
            "seconds": {"training": 700.0, "gathering": 60.0, "agreeing": 50.0, "waiting": 41.0},
        },
        "validation": {"nrmse": _summary(errors), "simulations": len(errors)},
        "sampler": {
            "method": "diffusion_posterior",
            "suggested": simulations,
            "adaptive": int(adaptive.sum()),
            "generations": int(generation.max()),
            "seconds": 21.0,
        },
        "throughput": {"samples_per_second": 26.4, "megabytes_per_second": 1.06},
        "memory": {
            "peak_rss_megabytes_per_rank": [1130.0 + 20 * rank for rank in range(ranks)],
            "promised_megabytes_per_rank": [1400.0] * ranks,
        },
    }
    (path / "summary.json").write_text(json.dumps(summary, indent=2))
    return path


def status_event(
    second: float = 500.0, seconds: float = 900.0, simulations: int = 240, ranks: int = 2
) -> dict:
    """One status as the server writes it."""
    part = second / seconds
    done = int(simulations * min(1.0, part * 1.1))
    wave = 0.5 + 0.5 * np.sin(second / 35)
    return {
        "elapsed": second,
        "simulations": {
            "planned": simulations,
            "waiting": max(0, simulations - done - 4),
            "running": min(4, simulations - done),
            "completed": done,
            "failed": 2 if part > 0.4 else 0,
            "retried": 3 if part > 0.5 else 0,
        },
        "samples": _samples(done * STEPS),
        "samples_per_second": 26 + 9 * wave if part < 0.92 else 0.0,
        "megabytes_per_second": 1.0 + 0.4 * wave if part < 0.92 else 0.0,
        "reservoir": [_reservoir(second, part) for _ in range(ranks)],
        "training": {
            "batches": int(12 * second),
            "batches_per_second": 12.0 + wave,
            "loss": 0.4 * np.exp(-5.5 * part**0.4) * np.exp(0.15 * np.sin(second * 1.7)),
            "learning_rate": 1e-3 * 0.5 ** int(4 * part),
            "samples_drawn": int(12 * second) * 64,
        },
        "trainer": {"training": 0.76, "gathering": 0.1, "agreeing": 0.06, "waiting": 0.04 * wave},
        "ingest": {
            **{"rank": 1, "waiting": 0.7, "blocked": 0.1 * (1 - wave), "receiving": 0.06},
            **{"assembling": 0.03, "copying": 0.05, "storing": 0.02, "answering": 0.02},
            **{"drawing": 0.02, "megabytes_per_second": 0.6},
        },
        "clients": {
            **{"solving": 0.8, "waiting_for_credit": 0.1, "waiting_for_parameters": 0.03},
            **{"copying": 0.04, "sending": 0.02},
        },
        "validation": {"mean": 0.02, "p99": 0.11, "max": 0.19} if part > 0.1 else None,
        "sampler": {
            "method": "diffusion_posterior",
            "generation": int(12 * part),
            "state": "fitting the acquisition model" if wave > 0.9 else "idle",
            "suggested": done + 4,
            "adaptive": int(0.6 * done),
            "late": 2,
            "seconds": 21.0 * part,
        },
        "jobs": {"queued": 0, "starting": 0, "alive": 4 if part < 0.92 else 0},
        "waiting": {
            "trainer_for_data": max(0.0, 0.5 - part) * wave,
            "clients_for_credit": 0.35 * part * (1 - wave),
            "clients_for_parameters": 0.03,
        },
    }


def _samples(received: int) -> dict:
    """The accounting of samples in a status."""
    return {
        "produced": received + 12,
        "received": received,
        "lost": 12,
        "duplicate": 4,
        "rejected": 3,
        "stored": received - 7,
        "trained": received - 7 - 300,
        "withdrawn": 0,
    }


def _reservoir(second: float, part: float) -> dict:
    """The reservoir of one rank in a status."""
    stored = int(min(1000, 40 * second))
    unseen = int(min(150 + 300 * np.exp(-part * 6), 40 * second))
    return {
        "capacity": 1000,
        "watermark": 300,
        "stored": stored,
        "seen": stored - unseen,
        "unseen": unseen,
    }


def _points(random, simulations, parameters):
    cube = random.random((simulations, parameters))
    generation = np.arange(simulations) * 12 // simulations
    adaptive = random.random(simulations) < np.minimum(0.75, generation / 6)
    pull = np.minimum(0.55, 0.09 * generation)[:, None]
    center = np.resize([0.5, 0.85, 0.15, 0.6, 0.1], parameters)
    drawn = np.clip(center + random.normal(0, 0.16, cube.shape), 0, 1)
    cube = np.where(adaptive[:, None], pull * drawn + (1 - pull) * cube, cube)
    cube = np.where((adaptive & (random.random(simulations) < 0.7))[:, None], drawn, cube)
    distance = np.abs(cube[:, 1 % parameters] - cube[:, 2 % parameters])
    difficulty = 0.01 * np.exp(2.2 * distance - 1.6 * cube[:, -1]) * random.lognormal(0, 0.2)
    bounds = [
        list(PARAMETERS.values())[i] if i < 5 else ("u", 0.0, 1.0, "") for i in range(parameters)
    ]
    points = np.empty_like(cube)
    for i, (kind, low, high, _) in enumerate(bounds):
        log = kind == "log_uniform"
        points[:, i] = low * (high / low) ** cube[:, i] if log else low + (high - low) * cube[:, i]
    return points, difficulty, generation, adaptive


def _write_study(path, study, names, simulations, ranks):
    lines = [f"name: {json.dumps(study)}", "parameters:"]
    for name in names:
        kind, low, high, unit = PARAMETERS.get(name, ("uniform", 0.0, 1.0, ""))
        lines.append(
            f"  {name}: {{distribution: {kind}, low: {low}, high: {high}, unit: '{unit}'}}"
        )
    lines += [
        "simulation:",
        "  command: ['{python}', 'solver.py']",
        f"  count: {simulations}",
        f"  time_steps: {STEPS}",
        "sampler: {method: diffusion_posterior, generation_size: 20}",
        f"server: {{ranks: {ranks}}}",
        "seed: 1",
    ]
    (path / "study.yaml").write_text("\n".join(lines) + "\n")


def _write_simulations(path, names, points, difficulty, generation, adaptive, failed, seconds):
    with (path / "simulations.jsonl").open("w") as file:
        for i in range(len(points)):
            issued = START + 5 + i * seconds * 0.9 / len(points)
            line = {
                "simulation": i,
                "parameters": dict(zip(names, map(float, points[i]), strict=True)),
                "method": "diffusion_posterior" if adaptive[i] else "prior",
                "generation": int(generation[i]),
                "log_density": -1.2 if adaptive[i] else None,
                "difficulty": None if i in failed else float(difficulty[i]),
                "attempts": 3 if i in failed else 1,
                "status": "failed" if i in failed else "completed",
                "issued_at": issued,
                "finished_at": issued + 14.0,
            }
            file.write(json.dumps(line) + "\n")


def _write_events(path, study, simulations, seconds, ranks, failed, random):
    last = status_event(seconds, seconds, simulations, ranks)
    with _Clock(path / "events.jsonl") as log:
        log.at(
            0,
            "run_started",
            study=study,
            epoch=1,
            run_dir=str(path),
            ranks=ranks,
            clients=4,
        )
        log.at(6, "server_ready", seconds=6.4)
        for job in range(4):
            log.at(8 + job, "client_connected", job=job, host=f"node{job}", pid=100 + job, ranks=2)
        log.at(12, "training_started", device="CPU", gradients="gloo")
        for second in range(13, seconds):
            log.at(second, "status", **status_event(second, seconds, simulations, ranks))
            if second % (seconds // 12) == 0:
                _write_generation(log, second, second // (seconds // 12), random)
            if second % (seconds // 18) == 0:
                _write_validation(log, second, second / seconds, random)
        for place in sorted(failed):
            log.at(
                400 + place / 10,
                "simulation_failed",
                simulation=place,
                attempt=3,
                reason="time step 41 holds NaN in field 'temperature'",
                dropped=True,
            )
        log.at(
            500, "refused", what="message", reason="epoch 0 is not this server's epoch 1", count=2
        )
        log.at(510, "warning", message="client 2 sends a sample only every 4.1 s")
        log.at(seconds, "reception_over")
        log.at(seconds + 1, "run_finished", status="finished")
    samples = dict(last["samples"])
    samples["trained"], samples["withdrawn"] = samples["stored"] - 5, 5
    return samples


def _write_generation(log, second, number, random):
    log.at(
        second + 0.2,
        "generation",
        generation=number,
        suggested=20,
        adaptive=min(15, 3 * number),
        late=int(number >= 7),
        seconds=1.5 + 0.1 * number,
        diagnostics={
            "effective_sample_size": 300 + 30 * number + 20 * random.random(),
            "acquisition_r2": 1 - 0.8 / number,
            "guidance_scale": min(1.0, 0.2 * number),
            "rank_correlation": 0.8 - 0.5 / number,
            "skill": 0.6 - 0.5 / number,
            "gate": min(1.0, 0.1 * number),
        },
    )


def _write_validation(log, second, part, random):
    mean = 0.4 * np.exp(-3.3 * part**0.4)
    error = {"mean": mean, "rms": 1.2 * mean, "std": 0.6 * mean}
    error |= {"p95": 2 * mean, "p99": 3.1 * mean * (1 + 0.1 * random.random())}
    error["max"] = 4.5 * mean * (1 + 0.3 * random.random())
    log.at(
        second + 0.5,
        "validation",
        batches=12 * second,
        seconds=0.8,
        nrmse=error,
        simulations=200,
    )


def _write_cases(path, names, points, errors, shape, random):
    order = np.argsort(errors)
    index = order[[0, len(order) // 2, -1]]
    axes = np.meshgrid(*[np.linspace(0, 1, size) for size in shape], indexing="ij")
    true = np.empty((3, 3, *shape))
    for case in range(3):
        for step in range(3):
            field = np.full(shape, 250.0)
            for number, axis in enumerate(axes):
                reach = 0.15 + 0.25 * step
                field = field + 220 * np.exp(-axis / reach) * np.cos(2 * axis * (case + number))
            true[case, step] = field
    wave = np.sin(9 * sum(axes)) if axes else np.float64(1.0)
    scale = errors[index].reshape(3, *[1] * (len(shape) + 1)) * 80
    np.savez(
        path / "validation_errors.npz",
        nrmse=errors,
        field_nrmse=errors[:, None],
        parameters=points[random.integers(len(points), size=len(errors))],
        parameter_names=np.array(names),
        case_names=np.array(["best", "median", "worst"]),
        case_index=index,
        time_steps=np.array([10, 50, 100]),
        field_name="temperature",
        unit="K",
        true=true,
        predicted=true + scale * wave,
        predicted_times=np.linspace(0.1, 1.0, 10),
        nrmse_by_step=errors[:, None] * np.linspace(0.5, 1.5, 10),
        correlation_times=np.full(len(errors), 0.8),
        **_spectra(shape),
    )


def _spectra(shape):
    """Spectra that fall with the wavenumber; those of the surrogate are short of energy above 8."""
    if not shape:
        return {}
    waves = np.arange(1, min(shape) // 2 + 1)
    true = np.stack([waves ** -(3.0 + 0.1 * step) for step in range(10)])
    both = np.stack([true, np.where(waves > 8, 0.1, 0.9) * true])
    fields = {"field_names": np.array(["temperature"]), "units": np.array(["K"])}
    return fields | {"spectrum": both, "spectrum_times": np.linspace(0.1, 1.0, 10)}


def _summary(errors):
    return {
        "mean": float(errors.mean()),
        "rms": float(np.sqrt(np.mean(errors**2))),
        "std": float(errors.std()),
        "p95": float(np.quantile(errors, 0.95)),
        "p99": float(np.quantile(errors, 0.99)),
        "max": float(errors.max()),
    }
