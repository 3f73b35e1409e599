"""The steps of other frameworks that speed.py measures: torch's, and Keras's on its backends.

Those of Keras on JAX are programs for speed.py, which runs them on its own arrays. A process has
one backend of Keras, so the others run in processes of their own, which tell how long a step took.
"""

import contextlib
import importlib.util
import inspect
import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import jax
import numpy as np
from measuring import Step

DECAY = {"weight_decay": 1e-4}
# The rows of speed.py that they have: a constructor, and its arguments besides the learning rate.
BOTH: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "adagrad": ("Adagrad", {}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop centered": ("RMSprop", {"centered": True}),
    "adadelta": ("Adadelta", {}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", DECAY),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "adamax": ("Adamax", {}),
}
TORCH = BOTH | {
    "nadam": ("NAdam", {}),
    "nadamw": ("NAdam", DECAY | {"decoupled_weight_decay": True}),
    "radam": ("RAdam", {}),
}
KERAS = BOTH | {
    "nadam": ("Nadam", {}),
    "nadamw": ("Nadam", DECAY),
    "adamaxw": ("Adamax", DECAY),
    "lion": ("Lion", {}),
    "lamb": ("Lamb", {}),
    "schedule_free_adamw": ("ScheduleFreeAdamW", {}),
}


def numbers(shape: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Parameters and gradients. Under a single one running variances would sink to 0."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, np.float32), [
        rng.standard_normal(shape, np.float32) for _ in range(2)
    ]


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


# --- torch ----------------------------------------------------------------------------------------


def torch_device() -> str | None:
    """Where torch can do what JAX does: on the same kind of device."""
    if not installed("torch"):
        return None
    import torch  # noqa: PLC0415

    cuda = "cuda" if torch.cuda.is_available() else None
    return {"cpu": "cpu", "gpu": cuda}.get(jax.default_backend())


class TorchStep(Step):
    """A step of an optimizer that is there, on parameters and state of its own."""

    def __init__(self, make: Callable[..., Any], params: Any, grads: list[Any]):
        import torch  # noqa: PLC0415

        self.params, self.grads = params, grads
        self.optimizer = make([self.params])
        self.count = 0
        if params.is_cuda:
            self.wait = torch.cuda.synchronize

    def __call__(self) -> None:
        self.params.grad = self.grads[self.count % len(self.grads)]
        self.count += 1
        self.optimizer.step()


def torch_steps(name: str, rate: float, shape: tuple[int, ...]) -> Iterator[tuple[str, Step]]:
    """Every variant that torch has of it: fused, foreach and a loop over the parameters."""
    device = torch_device()
    if device is None or name not in TORCH:
        return
    import torch  # noqa: PLC0415

    kind, given = TORCH[name]
    optimizer = getattr(torch.optim, kind)
    start, grads = numbers(shape)
    grads = [torch.from_numpy(g).to(device) for g in grads]
    flags = [
        flag for flag in ("fused", "foreach") if flag in inspect.signature(optimizer).parameters
    ]
    for variant in [*flags, "for-loop"]:
        chosen = {flag: flag == variant for flag in flags}

        def make(params, chosen=chosen):
            return optimizer(params, lr=rate, **given, **chosen)

        try:
            yield f"torch {variant}", TorchStep(make, torch.tensor(start, device=device), grads)
        except RuntimeError as error:
            # Which devices a fused one knows is told by its constructor alone.
            if "fused" not in str(error):
                raise


# --- Keras ----------------------------------------------------------------------------------------


def keras_backends() -> list[str]:
    """Those that are installed and do what JAX does on the same kind of device."""
    if not installed("keras"):
        return []
    others = {"torch": torch_device() is not None}
    # On a GPU it would take all of the memory from the others.
    others["tensorflow"] = jax.default_backend() == "cpu" and installed("tensorflow")
    return ["jax", *(name for name, there in others.items() if there)]


def keras_optimizer(name: str, rate: float, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The optimizer, and the variable for whose parameters it is built."""
    import keras  # noqa: PLC0415

    kind, given = KERAS[name]
    variable = keras.Variable(numbers(shape)[0])
    optimizer = getattr(keras.optimizers, kind)(rate, **given)
    optimizer.build([variable])
    return optimizer, variable


def keras_on_jax(name: str, rate: float, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The `init` of an optimizer, and a step of a training loop as for those of optax."""
    os.environ["KERAS_BACKEND"] = "jax"
    optimizer, _ = keras_optimizer(name, rate, shape)

    def init(params):
        del params
        return [variable.value for variable in optimizer.variables]

    def step(params, state, grads):
        (params,), state = optimizer.stateless_apply(state, [grads], [params])
        return params, state

    return init, jax.jit(step, donate_argnums=(0, 1))


class KerasStep(Step):
    """A step on torch or TensorFlow as `fit` makes it, in a process that has this backend."""

    def __init__(self, backend: str, name: str, rate: float, shape: tuple[int, ...]):
        import keras  # noqa: PLC0415

        optimizer, variable = keras_optimizer(name, rate, shape)
        self.grads = [keras.ops.convert_to_tensor(g) for g in numbers(shape)[1]]
        self.count = 0

        def step(grads):
            optimizer.apply([grads], [variable])

        if backend == "tensorflow":
            import tensorflow as tf  # noqa: PLC0415

            self.step = tf.function(step, jit_compile=True)
        else:
            import torch  # noqa: PLC0415

            self.step = torch.no_grad()(step)
            if torch.cuda.is_available():
                self.wait = torch.cuda.synchronize

    def __call__(self) -> None:
        self.step(self.grads[self.count % len(self.grads)])
        self.count += 1


def serve(connection: Connection, backend: str, device: str) -> None:
    """In a process of its own: answer a job by preparing it, and a number by that many steps."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    step = Step()
    with contextlib.suppress(EOFError):  # the end of the process that asks
        while True:
            asked = connection.recv()
            if isinstance(asked, int):
                connection.send(step.seconds(asked))
            else:
                step = KerasStep(backend, *asked)
                connection.send(None)


class Worker:
    """Keras on another backend, in a process of its own that goes when this one goes."""

    def __init__(self, backend: str):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, backend, jax.default_backend())
        context.Process(target=serve, args=arguments, daemon=True).start()
        theirs.close()  # so that a process that died is an end of file here

    def ask(self, question: Any) -> Any:
        self.connection.send(question)
        return self.connection.recv()


class RemoteStep(Step):
    """A step in a worker, which takes the time."""

    def __init__(self, worker: Worker, *job: Any):
        self.worker = worker
        worker.ask(job)

    def seconds(self, batch: int = 1) -> float:
        return self.worker.ask(batch)
