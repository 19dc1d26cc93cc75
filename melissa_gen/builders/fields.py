"""Shapes and types of the fields and inputs of a study."""

from melissa_gen.study import SimulationSection

__all__ = ["field_specs", "input_specs"]


def field_specs(simulation: SimulationSection) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns the name of each field with its (shape, dtype)."""
    return {name: (tuple(f.shape), f.dtype) for name, f in simulation.fields.items()}


def input_specs(simulation: SimulationSection) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns the name of each input field with its (shape, dtype)."""
    return {name: (tuple(f.shape), f.dtype) for name, f in simulation.inputs.items()}
