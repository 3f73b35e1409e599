"""A training that the tests spread over devices: its data, its loss, its step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_adaptive as oa

_RNG = np.random.default_rng(0)


def _normal(*shape):
    return _RNG.normal(size=shape).astype("float32")


X = _normal(64, 16)
Y = np.tanh(X @ _normal(16, 8) / 4)
START = {
    "first": _normal(16, 64) / 4,
    "last": _normal(64, 8) / 8,
    "bias": np.zeros(64, "float32"),
}


def mesh_of(devices=None, **axes):
    """Of the first devices, as many as there are in the product of the axes."""
    sizes = tuple(axes.values())
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices[: np.prod(sizes)]).reshape(sizes), tuple(axes))


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["first"] + params["bias"])
    return jnp.mean((hidden @ params["last"] - y).astype(jnp.float32) ** 2)


def stepper(tx, gradients=None):
    """A step: (params, state, x, y) -> (params, state)."""
    gradients = gradients or jax.value_and_grad(loss)
    tx = optax.with_extra_args_support(tx)

    def step(params, state, x, y):
        value, grads = gradients(params, x, y)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    return step


def on_one_device(tx, params, steps):
    """The parameters after every step."""
    step, state, path = jax.jit(stepper(tx)), tx.init(params), []
    for _ in range(steps):
        params, state = step(params, state, X, Y)
        path.append(params)
    return path


class Spread:
    """The same on a mesh with an axis "data": parameters, state and what places them."""

    def __init__(self, tx, mesh, start=None, where=None, axis="data"):
        start = START if start is None else start
        self.whole = NamedSharding(mesh, P())
        self.where = where or jax.tree.map(lambda _: self.whole, start)
        shapes = jax.tree.map(
            lambda p, at: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=at), start, self.where
        )
        self.cut = oa.state_shardings(tx, shapes, mesh, axis)
        self.params = jax.jit(lambda: start, out_shardings=self.where)()
        self.state = jax.jit(tx.init, out_shardings=self.cut)(self.params)
        part = NamedSharding(mesh, P("data"))
        # Of several processes each has the part of its own devices.
        rows = len(X) // jax.process_count()
        own = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
        self.batch = [jax.make_array_from_process_local_data(part, x[own], x.shape) for x in (X, Y)]
        self._step = jax.jit(
            stepper(tx), out_shardings=(self.where, self.cut), donate_argnums=(0, 1)
        )

    def step(self):
        """The parameters after one more step."""
        self.params, self.state = self._step(self.params, self.state, *self.batch)
        jax.block_until_ready(self.params)  # virtual devices share threads: one step at a time
        return self.params

    def like(self):
        """What a checkpoint of parameters and state is restored into."""
        return jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
            {"params": self.params, "state": self.state},
            {"params": self.where, "state": self.cut},
        )
