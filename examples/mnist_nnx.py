"""The network of mnist.py in Flax NNX: `nnx.Optimizer`, a checkpoint each epoch, resumed exactly.

    python examples/mnist_nnx.py --checkpoints outputs/nnx     # kill it, run it again

Everything random is a function of the epoch's number, and the checkpoint holds all the rest: a
resumed run ends with the same bits as one that was never stopped.
"""

import argparse
from pathlib import Path

import digits_data
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

import optax_adaptive as oa


class Network(nnx.Module):
    """The network of the tutorials, with NNX's own convolutions; mnist.py has faster ones."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        def norm(features: int) -> nnx.BatchNorm:
            return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-3, rngs=rngs)

        def conv(inputs: int, outputs: int) -> nnx.Conv:
            return nnx.Conv(inputs, outputs, (3, 3), padding="VALID", rngs=rngs)

        def pool(x: jax.Array) -> jax.Array:
            return nnx.max_pool(x, (2, 2), strides=(2, 2))

        self.features = nnx.Sequential(
            *(conv(1, 32), nnx.relu, norm(32), pool, norm(32)),
            *(conv(32, 64), nnx.relu, norm(64), pool, norm(64)),
        )
        self.head = nnx.Sequential(
            nnx.Linear(1600, 256, rngs=rngs), nnx.relu, norm(256), nnx.Linear(256, 10, rngs=rngs)
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.features(images / jnp.float32(255))
        return self.head(x.reshape(len(x), -1))


@nnx.jit
def train_step(
    model: Network, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """One step; model and optimizer are updated in place."""

    def loss_fn(model: Network) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def accuracy(model: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of the images that the model names rightly."""
    return (model(images).argmax(-1) == labels).mean()


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=Path("outputs/mnist_nnx"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--data", choices=("auto", "mnist", "digits"), default="auto")
    args = parser.parse_args(argv)
    data = digits_data.load(args.data)
    print(f"Data: {data.source}.")

    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, oa.adabound(1e-3, final_lr=0.1), wrt=nnx.Param)
    manager = ocp.CheckpointManager(
        args.checkpoints.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2)
    )
    done = manager.latest_step() or 0
    if done:
        like = nnx.state((model, optimizer))
        nnx.update((model, optimizer), manager.restore(done, args=ocp.args.StandardRestore(like)))
        print(f"Resumed after epoch {done}.")

    batch = 50 if data.name == "digits" else 250
    for epoch in range(done + 1, args.epochs + 1):
        order = np.random.default_rng(epoch).permutation(len(data.train_images))
        model.train()
        for some in order[: len(order) // batch * batch].reshape(-1, batch):
            loss = train_step(model, optimizer, data.train_images[some], data.train_labels[some])
        model.eval()
        test = np.array_split(np.arange(len(data.test_images)), -(-len(data.test_images) // 500))
        correct = np.mean([accuracy(model, data.test_images[i], data.test_labels[i]) for i in test])
        print(f"epoch {epoch}: last loss {loss:.4f}, test accuracy {correct:.4f}", flush=True)
        # Orbax writes to a temporary name and renames: a kill leaves whole checkpoints only.
        manager.save(epoch, args=ocp.args.StandardSave(nnx.state((model, optimizer))))
    manager.close()  # waits for the last write


if __name__ == "__main__":
    main()
