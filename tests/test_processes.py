"""Two processes, and checkpoints from so many devices on others: the training is the same."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from spread import START, Spread, mesh_of, on_one_device
from two_processes import SAVED, STEPS, optimizers

SCRIPT = Path(__file__).with_name("two_processes.py")
TIMEOUT = 240  # seconds; it takes 10 to 20
# Of the way that parameters go. A code is drawn that is next to another, as sums are rounded.
TOLERANCE = {"adamw": 1e-3, "adabound": 1e-3, "codes": 0.1}
every_optimizer = pytest.mark.parametrize("name", optimizers())


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def run(folder):
    """Start both, wait for both, and leave none: whether one failed, and their outputs."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=4", 1),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    # Each would wait for the other to compile, were it in the cache of one.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    port, logs, processes = free_port(), [], []
    try:
        for index in range(2):
            logs.append((folder / f"log{index}").open("w+"))
            command = [sys.executable, str(SCRIPT), str(index), "2", str(port), str(folder)]
            processes.append(
                subprocess.Popen(
                    command, stdout=logs[-1], stderr=subprocess.STDOUT, env=environment
                )
            )
        end = time.monotonic() + TIMEOUT
        # One that fails leaves the other waiting.
        while time.monotonic() < end and not any(p.poll() for p in processes):
            if all(p.poll() == 0 for p in processes):
                break
            time.sleep(0.1)
        failed = any(p.poll() != 0 for p in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    outputs = []
    for log in logs:
        log.seek(0)
        outputs.append(log.read()[-4000:])
        log.close()
    return failed, outputs


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder that both have written."""
    for attempt in range(2):  # another program may take the port before they do
        folder = tmp_path_factory.mktemp(f"together{attempt}")
        failed, outputs = run(folder)
        if not failed:
            return folder
    return pytest.fail("\n\n".join(f"process {i}:\n{text}" for i, text in enumerate(outputs)))


def same(name, found, expected):
    """Whether parameters agree, up to a part of the way from the start."""
    for key, start in START.items():
        way = np.abs(expected[key] - start).max()
        assert way > 1e-3
        tolerance = TOLERANCE[name] * way
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=tolerance)


@every_optimizer
def test_two_processes_train_as_one(name, together):
    with np.load(together / "path.npz") as path:
        for k, expected in enumerate(on_one_device(optimizers()[name], START, STEPS)):
            same(name, {key: path[f"{name}/{k}/{key}"] for key in START}, expected)


def restored(name, devices, folder):
    """A fresh training on so many devices, with what was saved."""
    training = Spread(optimizers()[name], mesh_of(data=devices))
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(folder, training.like())
    training.params, training.state = saved["params"], saved["state"]
    for x in jax.tree.leaves(training.state):
        assert x.sharding.device_set == set(jax.devices()[:devices])
    mu = training.state if name != "codes" else training.state.inner
    shards = mu.direction.mu["bias"].addressable_shards
    assert [shard.data.shape for shard in shards] == [(64 // devices,)] * devices
    return training


@every_optimizer
def test_a_checkpoint_of_two_processes_is_gone_on_with_in_one(name, together):
    training = restored(name, 4, together / name)
    expected = on_one_device(optimizers()[name], START, STEPS)
    for k in range(SAVED, STEPS):
        same(name, training.step(), expected[k])


@every_optimizer
def test_a_checkpoint_of_eight_devices_is_gone_on_with_on_four(name, tmp_path):
    eight = Spread(optimizers()[name], mesh_of(data=8))
    for _ in range(SAVED):
        eight.step()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / name, {"params": eight.params, "state": eight.state})
    four = restored(name, 4, tmp_path / name)
    expected = on_one_device(optimizers()[name], START, STEPS)
    for k in range(SAVED, STEPS):
        same(name, four.step(), expected[k])
        same(name, eight.step(), expected[k])
