"""The validation sets of a run: the one of the prior, and the further ones that the study names."""

import shutil
from collections.abc import Callable
from pathlib import Path

from melissa_gen.builders.dataset import check_dataset, check_times, dataset_writer
from melissa_gen.builders.prior import prior_of
from melissa_gen.dataset import Dataset
from melissa_gen.errors import DataError, StudyError
from melissa_gen.launcher.commands.validation_cache import validation_set
from melissa_gen.report.views import RunView
from melissa_gen.run_dir.folder import validation_file
from melissa_gen.study import Study, ValidationSetSection

__all__ = ["check_sets", "check_sets_without_solver", "copy_file_sets", "make_sets"]


def check_sets(study: Study) -> None:
    """Checks the distributions and files of `training.validation.sets`.

    Raises:
        DataError: A file can't be read, or does not fit the study.
        StudyError: Too few points of the distributions of a set meet the constraints of the study.
    """
    for name, section in _sets(study).items():
        if section.parameters:
            try:
                prior_of(_study_of_set(study, section))
            except StudyError as error:
                message = f"training.validation.sets.{name}.parameters: {error}"
                raise StudyError(message) from None
        if section.file is not None:
            with _opened(study, name, section):
                pass


def check_sets_without_solver(study: Study) -> None:
    """Checks that all sets of a study without a solver are files.

    Raises:
        StudyError: A set must be solved.
    """
    for name, section in _sets(study).items():
        if section.file is None:
            message = (
                f"training.validation.sets.{name} has to be solved, and melissa-gen train starts no solver; write its "
                "simulations with melissa-gen generate, and name the file in its key file"
            )
            raise StudyError(message)


def make_sets(
    study: Study, run_dir: Path, view: RunView, check: Callable[[], None] = lambda: None
) -> None:
    """Adds all validation sets of a study to a run directory; those that are not known yet are solved.

    Args:
        study: The study.
        run_dir: The run directory; the cache of sets is beside it.
        view: Displays the progress.
        check: Called while solvers run; an error of it ends them.

    Raises:
        MelissaGenError: A set can't be made.
    """
    cache = run_dir.parent / "validation"
    if study.training.validation.simulations:
        _link(validation_set(study, cache, view, check), run_dir / validation_file())
    for name, section in _sets(study).items():
        if section.file is None:
            points = [[point[key] for key in study.parameters] for point in section.points]
            plan = _study_of_set(study, section)
            made = validation_set(plan, cache, view, check, name, points or None)
            _link(made, run_dir / validation_file(name))
    copy_file_sets(study, run_dir)


def copy_file_sets(study: Study, run_dir: Path) -> None:
    """Copies the first trajectories of each set that is a file to a run directory.

    Raises:
        DataError: A file can't be read, or does not fit the study.
    """
    for name, section in _sets(study).items():
        if section.file is None:
            continue
        with _opened(study, name, section) as data:
            count = min(section.simulations, len(data))
            simulation = study.simulation.model_copy(update={"count": count})
            plan = study.model_copy(update={"simulation": simulation})
            target, settings = run_dir / validation_file(name), {"file": section.file}
            with dataset_writer(plan, target, settings, resume=False) as writer:
                for row in range(count):
                    given = data.read_inputs(row) if simulation.inputs else {}
                    inputs = {key: given[key] for key in simulation.inputs}
                    writer.begin(row, row, data.parameters[row], inputs)
                    for field, values in data.read(row).items():
                        writer.write_steps(row, 0, field, values)
                    writer.finish(row)


def _sets(study: Study) -> dict[str, ValidationSetSection]:
    training = study.training
    return training.validation.sets if training.enabled else {}


def _study_of_set(study: Study, section: ValidationSetSection) -> Study:
    """Returns the study whose validation set of the prior is a further set."""
    wanted = study.training.validation.model_copy(
        update={"simulations": section.count, "seed": section.seed}
    )
    return study.model_copy(
        update={
            "parameters": study.parameters | section.parameters,
            "training": study.training.model_copy(update={"validation": wanted}),
        }
    )


def _opened(study: Study, name: str, section: ValidationSetSection) -> Dataset:
    """Opens the file of a set and checks that it fits the study.

    Raises:
        DataError: It can't be read, or does not fit.
    """
    assert section.file is not None
    data = Dataset(study.folder / section.file)
    try:
        _fit(study, data, f"training.validation.sets.{name}", section)
    except BaseException:
        data.close()
        raise
    return data


def _fit(study: Study, data: Dataset, key: str, section: ValidationSetSection) -> None:
    fields = list(study.simulation.fields)
    if len(fields) == 1:
        data.rename_tensor(fields[0])
    if section.values and data.names:
        message = f"{data.path} has the parameters {', '.join(data.names)} of each trajectory; remove {key}.values"
        raise DataError(message)
    if not section.values and not data.names:
        example = ", ".join(f"{name}: 0.1" for name in study.parameters)
        message = (
            f"{data.path} does not say with which parameters it was made; add them, for example "
            f"{key}.values: {{{example}}}"
        )
        raise DataError(message)
    if section.values:
        data.set_parameters({name: section.values[name] for name in study.parameters})
    check_dataset(study, data)
    check_times(study, data)
    if not len(data):
        message = f"{data.path} holds no complete trajectory; name another file in {key}.file"
        raise DataError(message)


def _link(source: Path, target: Path) -> None:
    """Adds a set to the run directory, as a hard link if the file system allows it."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
