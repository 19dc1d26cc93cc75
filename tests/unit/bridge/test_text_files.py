"""Text files: tables with columns, and numbers one after the other, as programs in many languages write them."""

import numpy as np
import pandas as pd
import pytest

from melissa_gen.bridge.readers.text import read_numbers, read_table
from tests.unit.bridge.test_readers import STEPS, P, U, assert_reads, reader_of

TABLE = np.array([[1.0, -2.5], [3.0, 4e-10]])


def written(folder, text):
    path = folder / "out.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "x p\n1.0 -2.5\n3.0 4e-10\n",
        "x,p\n1.0, -2.5,\n3.0, 4.0D-10,\n",
        "x;p\r\n1.0;-2.5\r\n3.0;4e-10\r\n",
        "\ufeffx\tp\n1.0\t-2.5\n3.0\t4e-10",
        "# solver 1.0\n# x p\n 1.0 -2.5\n 3.0 4e-10\n# end\n",
        "% x, p\n1.0 -2.5\n3.0 4e-10\n",
        '"x" "p"\n"1.0" -2.5\n3 4e-10\n',
        "! t = 0.1\nx p\n1.0 -2.5\n\n3.0 4e-10\n",
        "# Temp\xe9rature\nx p\n1.0 -2.5\n3.0 4e-10\n".encode("latin-1"),
    ],
)
def test_a_table_with_names(tmp_path, text):
    found = read_table(written(tmp_path, text))
    np.testing.assert_array_equal(np.stack([found["x"], found["p"]], axis=1), TABLE)
    np.testing.assert_array_equal(np.stack([found["0"], found["1"]], axis=1), TABLE)


@pytest.mark.parametrize("text", ["1.0 -2.5\n3.0 4e-10", "# a comment\n1.0,-2.5\n3,4e-10"])
def test_a_table_without_names(tmp_path, text):
    found = read_table(written(tmp_path, text))
    np.testing.assert_array_equal(np.stack([found["0"], found["1"]], axis=1), TABLE)


def test_repeat_counts_are_several_columns(tmp_path):
    found = read_table(written(tmp_path, " 2*0.5 1.0\n 0.5 2*1.0\n"))
    assert [column.tolist() for column in found.values()] == [[0.5, 0.5], [0.5, 1.0], [1.0, 1.0]]


def test_tables_of_numpy_and_pandas(tmp_path):
    path = tmp_path / "out.txt"
    for delimiter in (" ", ",", ";", "\t"):
        np.savetxt(path, TABLE, fmt="%.17g", delimiter=delimiter, header=f"x{delimiter}p")
        np.testing.assert_array_equal(read_table(path)["p"], TABLE[:, 1])
        pd.DataFrame(TABLE, columns=["x", "p"]).to_csv(path, sep=delimiter, index=False)
        np.testing.assert_array_equal(read_table(path)["p"], TABLE[:, 1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no row of numbers"),
        ("# only comments\n", "no row of numbers"),
        ("x p\n1 2\n3\n", "2 columns, but not in all of its 2 rows"),
        ("x p\n1 2\n3 ****\n", "line 3: '\\*\\*\\*\\*' is not a number; a Fortran format"),
        ("x;p\n1,5;2,5\n", "line 2: '1,5' is not a number; decimal commas are not read"),
        ("x p\n1 two\n", "line 2: 'two' is not a number"),
    ],
)
def test_errors_in_a_table_name_the_line(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_table(written(tmp_path, text))


@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_one_after_the_other(tmp_path, order):
    for step in range(STEPS):
        words = [f"{value:.6E}".replace("E", "D") for value in U[step].ravel(order)]
        lines = [" ".join(words[n : n + 5]) for n in range(0, len(words), 5)]
        (tmp_path / f"u{step}.txt").write_text("# time 0\n" + "\n".join(lines))
    section = {"format": "text", "files": "u*.txt", "order": order}
    assert_reads(reader_of(tmp_path, section, fields={"u": {"shape": [4, 3]}}), p=None)


def test_all_time_steps_in_one_text_file(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(", ".join(map(str, row)) + "," for row in P))
    section = {"format": "text", "files": "p.txt", "steps": "axis"}
    assert_reads(reader_of(tmp_path, section, fields={"p": {"shape": [5]}}), u=None)


def test_errors_in_numbers_name_the_line(tmp_path):
    with pytest.raises(ValueError, match="it has no numbers"):
        read_numbers(written(tmp_path, "# nothing\n"))
    with pytest.raises(ValueError, match="line 2: a value is missing between two commas"):
        read_numbers(written(tmp_path, "1.0 3*2\n1,,2\n"))
