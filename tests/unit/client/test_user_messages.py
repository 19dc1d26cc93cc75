"""Messages reach the standard error unless the application has configured logging."""

import logging

import pytest

from melissa_gen.client.user_messages import show_user


@pytest.fixture
def log():
    """A logger as in an application that has configured nothing: the library's `NullHandler` alone."""
    logger = logging.Logger("melissa_gen.client.test")
    logger.addHandler(logging.NullHandler())
    return logger


def test_without_configuration_the_message_goes_to_the_standard_error(log, capsys):
    show_user(log, logging.INFO, "100 % of it")
    assert capsys.readouterr() == ("", "100 % of it\n")


def test_a_traceback_follows_an_error(log, capsys):
    try:
        raise ZeroDivisionError("no step")
    except ZeroDivisionError as error:
        show_user(log, logging.ERROR, "rank 0: the solver failed", error)
    printed = capsys.readouterr().err
    assert printed.startswith("rank 0: the solver failed\nTraceback")
    assert printed.endswith("ZeroDivisionError: no step\n")


def test_an_application_that_has_configured_logging_gets_a_record(log, capsys):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    log.addHandler(handler)
    show_user(log, logging.ERROR, "ending: the server is lost")
    assert [(r.levelname, r.getMessage()) for r in records] == [
        ("ERROR", "ending: the server is lost")
    ]
    assert capsys.readouterr().err == ""
