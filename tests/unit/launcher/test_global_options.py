import pytest

from melissa_gen.launcher.global_options import options_first


class Option:
    """The attributes of a command-line option that the check uses."""

    def __init__(self, *opts, is_flag=False, count=False):
        self.opts, self.is_flag, self.count = opts, is_flag, count


OPTIONS = (
    Option("--log-level"),
    Option("--debug", is_flag=True),
    Option("--verbose", "-v", count=True),
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run s.yaml", "run s.yaml"),
        ("run s.yaml --log-level debug", "--log-level debug run s.yaml"),
        ("run --log-level=debug s.yaml -vv", "--log-level=debug -vv run s.yaml"),
        ("run --debug s.yaml --verbose", "--debug --verbose run s.yaml"),
        ("status run -f", "status run -f"),
        ("run -- --debug", "run -- --debug"),
        ("run --log-level", "--log-level run"),
    ],
)
def test_global_options_are_accepted_after_the_command_name(words, expected):
    assert " ".join(options_first(words.split(), OPTIONS)) == expected
