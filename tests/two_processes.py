"""One of several processes that train together, each with four virtual devices.

    python two_processes.py INDEX COUNT PORT FOLDER

Every process has its part of the data; the parameters are everywhere and the state is spread over
all devices. Process 0 writes the parameters after every step to FOLDER/path.npz, and all of them
write a checkpoint in the middle: FOLDER/NAME for each optimizer.
"""

import os
import sys
from pathlib import Path

import jax

STEPS, SAVED = 6, 3  # how many, and after which one the checkpoint is made


def optimizers():
    """By their names."""
    import optax_adaptive as oa  # noqa: PLC0415

    return {
        "adamw": oa.adamw(0.01),
        "adabound": oa.adabound(0.01),
        "codes": oa.with_quantized_state(oa.adam(0.01), min_size=256),
    }


def main(index, count, port, folder):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", count, index, initialization_timeout=60)
    # JAX must not have looked for devices before this line.
    import numpy as np  # noqa: PLC0415
    import orbax.checkpoint as ocp  # noqa: PLC0415
    from spread import Spread, mesh_of  # noqa: PLC0415

    assert (jax.process_count(), jax.device_count()) == (count, 4 * count)
    path = {}
    for name, tx in optimizers().items():
        training = Spread(tx, mesh_of(data=4 * count))
        for k in range(STEPS):
            for key, x in training.step().items():
                path[f"{name}/{k}/{key}"] = np.asarray(x.addressable_data(0))
            if k + 1 == SAVED:
                with ocp.StandardCheckpointer() as checkpointer:
                    saved = {"params": training.params, "state": training.state}
                    checkpointer.save(folder / name, saved)
    if index == 0:
        np.savez(folder / "path.npz", **path)
    jax.distributed.shutdown()


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    main(*map(int, sys.argv[1:4]), Path(sys.argv[4]))
