import logging

import h5py
import numpy as np
import pytest

from melissa_gen.client import Client
from melissa_gen.errors import ClientError


def test_no_server_and_no_output_is_one_sentence():
    with pytest.raises(ClientError) as caught:
        Client()
    assert "there is no training server (MELISSA_GEN_SERVER is not set)" in str(caught.value)
    assert "`melissa-gen run STUDY.yaml`" in str(caught.value)


def test_a_client_without_a_server_writes_its_fields(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    output = tmp_path / "alone.h5"
    array = np.empty((4, 3), "f4")
    with Client(parameters={"a": 1.0, "b": 2.0}, output=output) as client:
        client.field("u", shape=(4, 3))
        client.field("p", shape=(2,), dtype="float64")
        for simulation in client:
            assert simulation.parameters == {"a": 1.0, "b": 2.0}
            for step in range(5):
                array.fill(step)
                simulation.send(u=array, p=[step, -step])
                array.fill(np.nan)
    assert f"no training server: writing to {output}" in caplog.text
    with h5py.File(output) as file:
        assert file["u"].shape == (1, 5, 4, 3)
        assert (file["u"][0] == np.arange(5, dtype="f4")[:, None, None]).all()
        assert file["p"].dtype == np.float64
        assert file["p"][0, 3].tolist() == [3.0, -3.0]
        assert file["parameters"][0].tolist() == [1.0, 2.0]
        assert file["complete"][:].tolist() == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["alone.h5"]


def test_a_block_that_is_not_the_whole_field_leaves_holes(tmp_path):
    reason = r"field 'u': the blocks of all ranks overlap or leave holes in the shape \(4, 3\)"
    with pytest.raises(ClientError, match=reason), Client(output=tmp_path / "x.h5") as client:
        client.field("u", shape=(4, 3), extent=(2, 3))
        for simulation in client:
            simulation.send(u=np.zeros((2, 3)))


def test_a_simulation_without_time_steps_is_an_error(tmp_path):
    with (
        pytest.raises(ClientError, match="sent no time step"),
        Client(output=tmp_path / "x.h5") as client,
    ):
        client.field("u", shape=(4, 3))
        for _ in client:
            pass
    assert not (tmp_path / "x.h5").exists()
