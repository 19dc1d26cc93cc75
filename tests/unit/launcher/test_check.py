"""What `melissa-gen check` finds before it runs a simulation."""

import io

from rich.console import Console

from melissa_gen.launcher.commands.check import check_study
from melissa_gen.report.live import LiveView
from melissa_gen.study import load_study


def test_indices_that_the_surrogate_can_not_have_are_found(study_file):
    changes = {
        "report.surrogate_indices": True,
        "constraints": ["a <= 2"],
        "simulation.command": ["no-such-solver"],
    }
    page = io.StringIO()
    assert not check_study(load_study(study_file, changes), LiveView(Console(file=page)))
    assert "surrogate: report.surrogate_indices can't be computed: " in page.getvalue()
