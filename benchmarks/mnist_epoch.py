"""How long is an epoch of examples/mnist.py? Against Keras on TensorFlow, and against plain Flax.

    python benchmarks/mnist_epoch.py [--keras-python PYTHON] [--rounds N]

One process each, stepping in turns of 24 batches of 250, so that all see the same weather. The
images are random: time does not depend on them. `--keras-python` names the Python of an environment
with keras and tensorflow-cpu; without it Keras is left out. Prints a table and the share of each
part of the network, and writes results/mnist_epoch.json.
"""

import argparse
import collections
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BATCH, TURN, IMAGES = 250, 24, 6000  # an epoch of 48,000 images is eight turns
MODES = {"flax": "Flax, examples/mnist.py", "plain": "Flax, nn.Conv and nn.max_pool"}


def random_images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (IMAGES, 28, 28, 1), np.uint8), rng.integers(0, 10, IMAGES)


def flax_trainer():
    """The trainer of the example, its state, and data on the device."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    import jax.numpy as jnp  # noqa: PLC0415
    import mnist  # noqa: PLC0415

    import optax_adaptive as oa  # noqa: PLC0415

    trainer = mnist.Trainer(oa.adam(0.01), 0.99, oa.optimizers["adam"])
    images, labels = random_images()
    data = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    return mnist, trainer, data


def flax_turn(plain):
    """A function that makes one turn: as the example does it, or as one writes it at first."""
    mnist, trainer, data = flax_trainer()
    import flax.linen as nn  # noqa: PLC0415
    import jax  # noqa: PLC0415

    def single(step, state, batches):
        state, loss = step(state, batches[0])
        return state, loss[None]

    if plain:  # one step per call and no loop around it, the operations of the library
        jax.lax.scan = single
        mnist.Conv = lambda features: nn.Conv(features, (3, 3), padding="VALID")
        mnist.max_pool = lambda x: nn.max_pool(x, (2, 2), strides=(2, 2))
    state = trainer.init(0)
    steps = 1 if plain else TURN // 2
    order = np.random.default_rng(0).permutation(IMAGES).reshape(-1, steps, BATCH)

    def turn():
        nonlocal state
        for batches in order:
            state, losses = trainer.advance(state, *data, batches)
        float(losses[-1])

    return turn


def work(mode):
    """A worker: one turn and its seconds for every line on standard input."""
    if mode == "keras":
        return keras_work()
    turn = flax_turn(plain=mode == "plain")
    turn()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        turn()
        print(time.perf_counter() - start, flush=True)
    return None


def keras_work():
    """Keras trains in `fit`, which stops and waits for its turn every 24 batches."""
    import keras  # noqa: PLC0415
    from keras import layers  # noqa: PLC0415

    norm, pool = layers.BatchNormalization, layers.MaxPooling2D
    blocks = [
        layer
        for features in (32, 64)
        for layer in (layers.Conv2D(features, 3, activation="relu"), norm(), pool(), norm())
    ]
    dense = [layers.Flatten(), layers.Dense(256, activation="relu"), norm(), layers.Dense(10)]
    model = keras.Sequential([layers.Input((28, 28, 1)), *blocks, *dense])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)

    class Turns(keras.callbacks.Callback):
        batches, start = 0, 0.0

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1
            if self.batches % TURN:
                return
            first = self.batches == TURN
            print("ready" if first else time.perf_counter() - self.start, flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            self.start = time.perf_counter()

    images, labels = random_images()
    images = images.astype("float32") / 255
    model.fit(images, labels, batch_size=BATCH, epochs=10**6, verbose=0, callbacks=[Turns()])


def measure(pythons, rounds):
    """The seconds of each worker in each round, in turns."""
    workers = {}
    for mode, python in pythons.items():
        workers[mode] = subprocess.Popen(
            [python, __file__, "--worker", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        while (line := workers[mode].stdout.readline().strip()) != "ready":
            if not line and workers[mode].poll() is not None:
                raise SystemExit(f"mnist_epoch.py: the worker {mode} of {python} did not start.")
    seconds = {mode: [] for mode in workers}
    for _ in range(rounds):
        for mode, worker in workers.items():
            worker.stdin.write("go\n")
            seconds[mode].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return seconds


def profile():
    """The share of a step of each part of the network, by the names of XLA's operations."""
    _, trainer, data = flax_trainer()
    import jax  # noqa: PLC0415

    state = trainer.init(0)
    batches = np.arange(12 * BATCH).reshape(12, BATCH)
    program = trainer.advance.lower(state, *data, batches).compile().as_text()
    names = dict(re.findall(r'%([\w.\-]+) = .*?op_name="([^"]+)"', program)[::-1])
    state, _ = jax.block_until_ready(trainer.advance(state, *data, batches))
    spent = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(trainer.advance(state, *data, batches))
        (trace,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
            for event in (e for line in plane.lines for e in line.events):
                is_op = any(key == "hlo_op" for key, _ in event.stats) and event.name in names
                if is_op and not event.name.startswith(("while", "call")):
                    spent[part_of(names[event.name])] += event.duration_ns
    return {part: time / spent.total() for part, time in spent.most_common()}


def part_of(name):
    parts = {"Conv_0": "conv 1", "Conv_1": "conv 2", "BatchNorm": "batch norm", "Dense": "dense"}
    parts |= {"scale_by": "optimizer"}
    found = next((part for key, part in parts.items() if key in name), "max pool, relu and others")
    if found.startswith("conv"):
        found += ", product" if "dot_general" in name else ", patches and bias"
    return found + (", backward" if "transpose(jvp" in name else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keras-python", help="with keras and tensorflow-cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--worker", choices=(*MODES, "keras"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return
    pythons = dict.fromkeys(MODES, sys.executable)
    if args.keras_python:
        pythons = {"keras": args.keras_python} | pythons
    seconds = measure(pythons, args.rounds)
    epoch = 48_000 / (TURN * BATCH)
    report = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(), "epoch": {}}
    for mode, turns in seconds.items():
        row = {"best": epoch * min(turns), "median": epoch * statistics.median(turns)}
        line = f"{MODES.get(mode, 'Keras on TensorFlow'):32} {row['best']:6.1f} s at best, "
        line += f"{row['median']:6.1f} s in the median"
        if "keras" in seconds:
            pairs = zip(turns, seconds["keras"], strict=True)
            row["over_keras"] = statistics.median(a / b for a, b in pairs)
            line += f", {row['over_keras']:.2f} of Keras"
        report["epoch"][mode] = row
        print(line)
    report["profile"] = profile()
    for part, share in report["profile"].items():
        print(f"{share:6.1%}  {part}")
    (HERE / "results" / "mnist_epoch.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
