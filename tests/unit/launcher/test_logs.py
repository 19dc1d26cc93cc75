import subprocess
import sys

from melissa_gen.launcher.backends.log_size import shorten

WRITER = """
import sys
for n in range(20000):
    sys.stdout.write(f"line {n:06d}\\n")
    sys.stdout.flush()
    if n == 9999:
        sys.stderr.write("half\\n")
        sys.stderr.flush()
        sys.stdin.readline()
"""


def test_a_short_log_is_not_changed(tmp_path):
    path = tmp_path / "client-0.log"
    assert not shorten(path)
    path.write_text("x" * 100)
    assert not shorten(path, max_bytes=100, kept=10)
    assert path.read_text() == "x" * 100


def test_a_growing_log_keeps_its_first_and_last_lines(tmp_path):
    path = tmp_path / "client-0.log"
    with path.open("ab") as log:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert writer.stderr.readline() == "half\n"
    assert shorten(path, max_bytes=10_000, kept=1200)
    assert path.stat().st_size < 2500
    writer.communicate("\n")
    lines = path.read_text().splitlines()
    assert lines[:2] == ["line 000000", "line 000001"]
    assert [line for line in lines if "bytes removed" in line] == [
        "[... 117600 bytes removed by melissa-gen ...]"
    ]
    tail = lines[lines.index("[... 117600 bytes removed by melissa-gen ...]") + 1 :]
    assert tail[-1] == "line 019999"
    assert tail == [f"line {n:06d}" for n in range(9900, 20_000)]
