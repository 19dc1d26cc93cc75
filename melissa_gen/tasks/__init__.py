"""Tasks: what one item of a batch is, and how a surrogate learns it and is validated.

A `Task` says which time steps an item needs, compares the predictions for a batch with the simulated fields, and
predicts whole trajectories. The training loop knows no task by name. From melissa_gen, this package imports only
`surrogates` and `errors`.
"""

from melissa_gen.tasks.autoregressive import Autoregressive
from melissa_gen.tasks.base import Rows, Task, Window
from melissa_gen.tasks.creation import create_task
from melissa_gen.tasks.direct import Direct
from melissa_gen.tasks.equations import gradient
from melissa_gen.tasks.operator import Operator
from melissa_gen.tasks.physics_informed import PhysicsInformed
from melissa_gen.tasks.pointwise import Pointwise

__all__ = [
    "Autoregressive",
    "Direct",
    "Operator",
    "PhysicsInformed",
    "Pointwise",
    "Rows",
    "Task",
    "Window",
    "create_task",
    "gradient",
]
