"""ZeRO-1 on digits: every device has the parameters, and its share of the optimizer's state.

    python examples/zero1.py                         # on 8 virtual devices without an accelerator
    python examples/zero1.py --optimizer adabound

The same network three times: its state on every device; spread over them; and spread, with
gradients that come by reduce-scatter on every platform, where the second leaves it to the compiler.
"""

import argparse
import contextlib
from collections.abc import Callable
from typing import Any

import digits_data
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_adaptive as oa


def logits(params: Any, images: jax.Array) -> jax.Array:
    """A network with one hidden layer."""
    return jax.nn.relu(images @ params["hidden"] + params["bias"]) @ params["head"]


def loss_fn(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)
    return losses.mean()


def scattered(loss: Callable[..., jax.Array], mesh: Mesh, cut: Any, axis: str = "data") -> Any:
    """As `jax.value_and_grad(loss)`, but every device keeps of the gradients what `cut` says.

    Each has the gradients of its part of the batch, of which `loss` is a mean, and they are added
    up on the way: half of what an all-reduce sends.
    """
    specs = jax.tree.map(lambda at: at.spec, cut)

    def mean(grad: jax.Array, spec: P) -> jax.Array:
        for k, name in enumerate(spec):
            if name == axis:
                total = lax.psum_scatter(grad, axis, scatter_dimension=k, tiled=True)
                return total / lax.axis_size(axis)
        return lax.pmean(grad, axis)

    def local(params: Any, images: jax.Array, labels: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, images, labels)
        return lax.pmean(value, axis), jax.tree.map(mean, grads, specs)

    given, made = (P(), P(axis), P(axis)), (P(), specs)
    return jax.shard_map(local, mesh=mesh, in_specs=given, out_specs=made, check_vma=False)


def stepper(tx: optax.GradientTransformation, gradients: Any, params_at: Any, state_at: Any) -> Any:
    """A compiled step: (params, state, *batch) -> (params, state, loss)."""
    tx = optax.with_extra_args_support(tx)

    def step(params: Any, state: Any, *batch: jax.Array) -> Any:
        loss, grads = gradients(params, *batch)
        updates, state = tx.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state, loss

    return jax.jit(step, out_shardings=(params_at, state_at, None), donate_argnums=(0, 1))


def bytes_held(tree: Any) -> int:
    """By the first device."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def main(argv: list[str] | None = None) -> list[tuple[str, float, float, int]]:
    """Train in three ways: the name, loss, test accuracy and bytes of state per device of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [name for name, o in oa.optimizers.items() if "hessian_diagonal" not in o.needs]
    parser.add_argument("--optimizer", default="adamw", choices=names, metavar="NAME")
    parser.add_argument("--devices", type=int, default=8, help="of the CPU, without an accelerator")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args(argv)
    with contextlib.suppress(RuntimeError):  # where JAX has begun it keeps the devices it has
        jax.config.update("jax_num_cpu_devices", args.devices)

    mesh = Mesh(jax.devices(), ("data",))
    whole, part = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    data = digits_data.load("digits")
    images, test = (
        x.reshape(len(x), -1).astype(np.float32) / 255
        for x in (data.train_images, data.test_images)
    )
    keys = jax.random.split(jax.random.key(0))
    start = {
        "hidden": jax.random.normal(keys[0], (784, 512)) / 28,
        "bias": jnp.zeros(512),
        "head": jax.random.normal(keys[1], (512, 10)) / 23,
    }

    record = oa.optimizers[args.optimizer]
    tx = record.make(*[0.001] * (record.learning_rate is None))
    cut = oa.state_shardings(tx, start, mesh, "data")
    mean = oa.state_shardings(
        optax.ema(0.9), start, mesh, "data"
    ).ema  # gradients lie as their mean
    print(oa.plan(tx, start, shardings=cut))

    plain, results = jax.value_and_grad(loss_fn), []
    for name, gradients, state_at in (
        ("state on every device", plain, whole),
        ("ZeRO-1", plain, cut),
        ("ZeRO-1, scattered gradients", scattered(loss_fn, mesh, mean), cut),
    ):
        params = jax.jit(lambda: start, out_shardings=whole)()
        state = jax.jit(tx.init, out_shardings=state_at)(params)
        step, loss = stepper(tx, gradients, whole, state_at), jnp.nan
        size = 128 // mesh.size * mesh.size  # of a batch, the same on every device
        for epoch in range(args.epochs):
            order = np.random.default_rng(epoch).permutation(len(images))
            for batch in order[: len(order) // size * size].reshape(-1, size):
                given = jax.device_put((images[batch], data.train_labels[batch]), part)
                params, state, loss = step(params, state, *given)
                if jax.default_backend() == "cpu":
                    loss.block_until_ready()  # virtual devices share threads: one step at a time
        best = record.eval_params(state, params) if record.eval_params else params
        accuracy = float((logits(best, test).argmax(-1) == data.test_labels).mean())
        results.append((name, float(loss), accuracy, bytes_held(state)))
        print(
            f"{name:<28} loss {loss:.4f}  test accuracy {accuracy:.4f}  "
            f"state on one device {results[-1][-1]:,} B"
        )
    return results


if __name__ == "__main__":
    main()
