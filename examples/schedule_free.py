"""Schedule-Free AdamW with batch norm: which parameters and which statistics to evaluate.

    python examples/schedule_free.py

Gradients are taken at y, the parameters that are trained. What is evaluated and exported is their
average x, and batch norm must know the statistics of x: those gathered in training are those of y.
`batch_statistics` in mnist.py measures them.
"""

import argparse
from typing import Any

import digits_data
import jax
import jax.numpy as jnp
import mnist
import numpy as np
import optax

import optax_adaptive as oa

Variables = dict[str, Any]
network = mnist.Network(momentum=0.9)


def loss_fn(params: Any, stats: Any, images: jax.Array, labels: jax.Array) -> Any:
    """The loss of one batch, and the statistics of batch norm after it."""
    logits, stats = network.apply(
        {"params": params, **stats}, images, train=True, mutable="batch_stats"
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats


@jax.jit
def correct(variables: Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that the network names rightly."""
    return (network.apply(variables, images, train=False).argmax(-1) == labels).mean()


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train, and evaluate in three ways."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=1, help="the more, the nearer are y and x")
    epochs = parser.parse_args(argv).epochs
    data = digits_data.load("digits")
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    test = jnp.asarray(data.test_images), jnp.asarray(data.test_labels)

    variables = network.init(jax.random.key(0), images[:1], train=False)
    params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
    tx = oa.schedule_free_adamw(0.01, warmup_steps=20)
    state = tx.init(params)

    @jax.jit
    def step(params: Any, stats: Any, state: Any, batch: jax.Array) -> Any:
        grads, stats = jax.grad(loss_fn, has_aux=True)(params, stats, images[batch], labels[batch])
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state

    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(images))
        for batch in order[: len(images) // 50 * 50].reshape(-1, 50):
            params, stats, state = step(params, stats, state, batch)

    x = oa.schedule_free_eval_params(state, params)
    batches = np.arange(len(images) // 50 * 50).reshape(-1, 50)
    own = jax.jit(mnist.batch_statistics)({"params": x, **stats}, images, batches)
    accuracy = {
        "y, as trained": correct({"params": params, **stats}, *test),
        "x, with the statistics of y": correct({"params": x, **stats}, *test),
        "x, with its own": correct({"params": x, **own}, *test),
    }
    for name, share in accuracy.items():
        print(f"{name:<28} {share:.4f}")
    return {name: float(share) for name, share in accuracy.items()}


if __name__ == "__main__":
    main()
