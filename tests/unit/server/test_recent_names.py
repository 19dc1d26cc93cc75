"""Names of a run of any length, in bounded memory."""

from melissa_gen.server.coordination.recent_names import RecentNames


def test_the_newest_names_are_remembered():
    names = RecentNames(limit=2)
    for name in ("a", "b", "a", "c"):
        names.add(name)
    assert "a" in names and "c" in names and "b" not in names
