"""Seven small tasks with real data where there is such: what convergence.py compares optimizers on.

A task is a few thousand numbers to learn, a few hundred batches to learn them from and what counts
at the end, all pure functions, so that `jax.vmap` trains many copies at once. Everything that a
result depends on is in `settings`.
"""

import ast
import functools
import importlib.util
import math
import pydoc_data.topics
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import digits_data  # noqa: E402
from lr_basin import conv, dense, epochs, glorot  # noqa: E402

Params = Any
Data = dict[str, tuple[jax.Array, ...]]  # "train", "validation", "test": arrays of equal length


class Task(NamedTuple):
    """What is learned, from what, and what counts at the end."""

    name: str
    settings: dict[str, Any]
    data: Data
    shapes: dict[str, dict[str, tuple[int, ...]]]  # of the parameters: layer, name
    loss: Callable[[Params, Any], jax.Array]  # of a batch
    measure: Callable[[Params, Any], jax.Array] | None = None  # instead of the loss, at the end


def start(task: Task, seed: jax.Array) -> Params:
    """The parameters of this seed, the same for every optimizer: Glorot's, or as large as said."""
    sizes = [math.prod(s) for layer in task.shapes.values() for s in layer.values()]
    # Drawn at once: every call of jax.random takes XLA a second to compile.
    draws = iter(
        jnp.split(
            jax.random.uniform(jax.random.key(seed), (sum(sizes),), minval=-1.0),
            np.cumsum(sizes)[:-1],
        )
    )
    params: dict[str, dict[str, jax.Array]] = {}
    for layer, arrays in task.shapes.items():
        params[layer] = {}
        for name, shape in arrays.items():
            draw = next(draws).reshape(shape)
            if name == "kernel":
                reach = glorot(shape)
            else:
                reach = {"bias": 0.0, "scale": 0.0}.get(name, task.settings.get("reach", 0.0))
            params[layer][name] = reach * draw + (1.0 if name == "scale" else 0.0)
    return params


def batches(task: Task, seed: jax.Array) -> jax.Array:
    """Which examples make each batch, of shape (steps, batch): every one once in an epoch."""
    examples = len(task.data["train"][0])
    return epochs(examples, task.settings["steps"], task.settings["batch"], seed)


def muon_role(path: str, shape: tuple[int, ...]) -> str:
    """As its author has it: hidden kernels are matrices, what reads and writes is for Adam."""
    hidden = path.endswith("kernel") and not path.startswith("head")
    return {2: "matrix", 4: "conv"}[len(shape)] if hidden else "adam"


def adam_mini_role(path: str, shape: tuple[int, ...]) -> str:
    """As its authors have it for such layers."""
    if len(shape) == 1:
        return "adam"
    if not path.endswith("kernel"):
        return "rows"
    return f"heads:{HEADS}" if path.startswith(("query", "key")) else "neurons"


def measured(task: Task, params: Params, examples: Any) -> jax.Array:
    """The mean over examples, some at a time: all at once need a GB."""
    if task.measure is not None:
        return task.measure(params, examples)
    size = min(50, len(examples[0]))
    parts = len(examples[0]) // size
    rows = jax.tree.map(lambda x: x[: parts * size].reshape(parts, size, *x.shape[1:]), examples)
    return jax.lax.map(functools.partial(task.loss, params), rows).mean()


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def split(arrays: tuple[Any, ...], *lengths: int, seed: int | None = 0) -> Data:
    """Training, validation and test examples, in an order that one seed decides."""
    order = np.arange(len(arrays[0]))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    ends = np.cumsum(lengths)
    parts = zip(("train", "validation", "test"), (0, *ends[:-1]), ends, strict=True)
    return {
        name: tuple(jnp.asarray(np.asarray(x)[order[low:high]]) for x in arrays)
        for name, low, high in parts
    }


# --- images ---------------------------------------------------------------------------------------


def convolutional(params: Params, x: jax.Array) -> jax.Array:
    """Two 3x3 convolutions, maxima over 2x2 where sides divide by 4, and a dense layer."""
    for name in ("conv_0", "conv_1"):
        x = jax.nn.relu(conv(params[name], x))
        n, side, _, channels = x.shape
        if side % 4 == 0:  # 14 pixels: 12, 6, 4, 2; 8 pixels: 6, 4, 2
            x = x.reshape(n, side // 2, 2, side // 2, 2, channels).max((2, 4))
    return dense(params["head"], x.reshape(len(x), -1))


def layer(*shape: int) -> dict[str, tuple[int, ...]]:
    return {"kernel": shape, "bias": shape[-1:]}


def digits_cnn() -> Task:
    """The digits of scikit-learn in their own 8x8 pixels."""
    data = digits_data.embedded()
    images = np.concatenate([data.train_images, data.test_images])
    labels = np.concatenate([data.train_labels, data.test_labels])
    images = (images[:, 2:-2:3, 2:-2:3] / 255).astype(np.float32).reshape(-1, 8, 8, 1)
    return Task(
        "digits-cnn",
        {"network": "conv 8, conv 16, dense 10", "batch": 16, "steps": 300, "measure": "test loss"},
        split((images, labels.astype(np.int32)), 997, 400, 400),
        {"conv_0": layer(3, 3, 1, 8), "conv_1": layer(3, 3, 8, 16), "head": layer(64, 10)},
        lambda params, batch: cross_entropy(convolutional(params, batch[0]), batch[1]),
    )


def halved(images: np.ndarray) -> np.ndarray:
    """28x28 pixels of MNIST as 14x14."""
    return (images.reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255).astype(np.float32)


def mnist_parts(data: digits_data.Digits, train: int) -> Data:
    """Training and validation images of MNIST's own, every fifth of its test images."""
    known = split((halved(data.train_images), data.train_labels.astype(np.int32)), train, 2000, 0)
    test = (halved(data.test_images[::5]), data.test_labels[::5].astype(np.int32))
    return known | {"test": tuple(jnp.asarray(x) for x in test)}


def mnist_cnn(data: digits_data.Digits) -> Task:
    """Every image is seen once."""
    return Task(
        "mnist-cnn",
        {"network": "conv 8, conv 16, dense 10", "batch": 32, "steps": 400, "measure": "test loss"},
        mnist_parts(data, 12_800),
        {"conv_0": layer(3, 3, 1, 8), "conv_1": layer(3, 3, 8, 16), "head": layer(64, 10)},
        lambda params, batch: cross_entropy(convolutional(params, batch[0][..., None]), batch[1]),
    )


def autoencoder(params: Params, x: jax.Array) -> jax.Array:
    x = x.reshape(len(x), -1)
    for name in ("down_0", "down_1", "up_0"):
        x = jnp.tanh(dense(params[name], x))
    return dense(params["head"], x)


def mnist_autoencoder(data: digits_data.Digits) -> Task:
    """A deep autoencoder, the classic of badly conditioned networks: 16 numbers for an image."""

    def loss(params: Params, batch: Any) -> jax.Array:
        image = batch[0].reshape(len(batch[0]), -1)
        return optax.sigmoid_binary_cross_entropy(autoencoder(params, image), image).sum(-1).mean()

    return Task(
        "mnist-autoencoder",
        {"network": "196, 64, 16, 64, 196", "batch": 32, "steps": 600, "measure": "test loss"},
        mnist_parts(data, 19_200),
        {
            **{"down_0": layer(196, 64), "down_1": layer(64, 16)},
            **{"up_0": layer(16, 64), "head": layer(64, 196)},
        },
        loss,
    )


# --- text -----------------------------------------------------------------------------------------

PACKAGES = (
    *("asyncio", "concurrent", "ctypes", "email", "http", "importlib", "json", "logging"),
    *("multiprocessing", "unittest", "urllib", "xml"),
)
WORDS = 2000


def functions() -> tuple[list[Counter], list[int]]:
    """The words of every function in some packages of Python's library, and whose they are."""
    words, owners = [], []
    for owner, package in enumerate(PACKAGES):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        for file in sorted(Path(spec.submodule_search_locations[0]).rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            lines = source.splitlines()
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                    words.append(Counter(re.findall(r"[a-z]{2,}", text.lower())))
                    owners.append(owner)
    return words, owners


def text_logistic() -> Task:
    """Whose function is this? Logistic regression on words, most of which are rare."""
    words, owners = functions()
    documents = Counter(word for counts in words for word in counts)
    vocabulary = {word: i for i, (word, _) in enumerate(documents.most_common(WORDS))}
    features = np.zeros((len(words), WORDS), np.float32)
    for row, counts in zip(features, words, strict=True):
        for word, count in counts.items():
            if word in vocabulary:
                row[vocabulary[word]] = 1 + math.log(count)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1)
    held = len(owners) // 6
    return Task(
        "text-logistic",
        {
            "network": f"{WORDS} words, {len(PACKAGES)} packages",
            "functions": len(owners),  # tells the version of Python whose functions these are
            "batch": 32,
            "steps": 600,
            "measure": "test loss",
        },
        split((features, np.asarray(owners, np.int32)), len(owners) - 2 * held, held, held),
        {"head": layer(WORDS, len(PACKAGES))},
        lambda params, batch: cross_entropy(dense(params["head"], batch[0]), batch[1]),
    )


CONTEXT, WIDTH, HEADS = 32, 32, 2


def normalized(x: jax.Array, scale: jax.Array) -> jax.Array:
    return scale * x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


def transformer(params: Params, tokens: jax.Array) -> jax.Array:
    """Logits of the next characters: one layer of attention, one dense, a residual around each."""
    x = params["embed"]["table"][tokens] + params["positions"]["table"]
    h = normalized(x, params["attention"]["scale"])
    query, key, value = (
        (h @ params[name]["kernel"]).reshape(*h.shape[:2], HEADS, -1)
        for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(WIDTH / HEADS)
    scores = jnp.where(np.tri(CONTEXT, dtype=bool), scores, -1e9)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value).reshape(h.shape)
    x = x + mixed @ params["out"]["kernel"]
    h = dense(params["wide"], normalized(x, params["dense"]["scale"]))
    x = x + dense(params["narrow"], jax.nn.relu(h))
    return normalized(x, params["final"]["scale"]) @ params["head"]["kernel"]


def char_transformer() -> Task:
    """The characters of Python's own help pages."""
    topics = pydoc_data.topics.topics
    joined = "\n".join(topics[name] for name in sorted(topics))
    alphabet, numbers = np.unique(list(joined), return_inverse=True)
    windows = (len(numbers) - 1) // CONTEXT
    x, y = (numbers[i:][: windows * CONTEXT].reshape(-1, CONTEXT).astype(np.int32) for i in (0, 1))
    square, held = {"kernel": (WIDTH, WIDTH)}, 500
    scale = {"scale": (WIDTH,)}
    return Task(
        "char-transformer",
        {
            "network": f"1 layer, width {WIDTH}, {HEADS} heads, context {CONTEXT}",
            "characters": len(joined),  # tells the version of Python whose help this is
            "reach": 0.1,
            "batch": 8,
            "steps": 500,
            "measure": "test loss",
        },
        split((x, y), windows - 2 * held, held, held),
        {
            "embed": {"table": (len(alphabet), WIDTH)},
            "positions": {"table": (CONTEXT, WIDTH)},
            **dict.fromkeys(("query", "key", "value", "out"), square),
            "wide": layer(WIDTH, 4 * WIDTH),
            "narrow": layer(4 * WIDTH, WIDTH),
            **dict.fromkeys(("attention", "dense", "final"), scale),
            "head": {"kernel": (WIDTH, len(alphabet))},
        },
        lambda params, batch: cross_entropy(transformer(params, batch[0]), batch[1]),
    )


# --- two without a network ------------------------------------------------------------------------

DIMENSIONS, NOISES = 100, 4096


def quadratic() -> Task:
    """Curvatures over four decades along no axis, noise along all of them; the optimum is known."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))
    root = (axes * np.logspace(0, -2, DIMENSIONS)).astype(np.float32)  # of the Hessian: squared
    noise = 0.01 * rng.standard_normal((NOISES, DIMENSIONS)).astype(np.float32)
    noise -= noise.mean(0)  # so that the optimum is exactly there
    # Not at 0, where weight decay would lead.
    optimum = rng.uniform(-0.1, 0.1, DIMENSIONS).astype(np.float32)
    none = jnp.zeros((1, 1))

    def loss(params: Params, batch: Any) -> jax.Array:
        # As in a regression that a model can solve but for its noise: never below 0.
        residuals = (params["point"]["reached"] - optimum) @ root + batch[0]
        return 0.5 * jnp.square(residuals).sum(-1).mean()

    def excess(params: Params, _: Any) -> jax.Array:
        return 0.5 * jnp.square((params["point"]["reached"] - optimum) @ root).sum()

    return Task(
        "quadratic",
        {
            "network": f"{DIMENSIONS} dimensions, curvature 1 to 1e-4, optimum not at 0",
            "reach": 0.1,
            "batch": 8,
            "steps": 1000,
            "measure": "loss above the optimum",
        },
        {"train": (jnp.asarray(noise),), "validation": (none,), "test": (none,)},
        {"point": {"reached": (DIMENSIONS,)}},
        loss,
        excess,
    )


RANK = 8


def factorization() -> Task:
    """Two thirds of the digits' pixels as a product of thin matrices; the others are guessed."""
    images = digits_data.embedded()
    pixels = np.concatenate([images.train_images, images.test_images])[:, 2:-2:3, 2:-2:3]
    matrix = (pixels.reshape(len(pixels), -1) / 255).astype(np.float32)
    rows, columns = np.indices(matrix.shape, np.int32).reshape(2, -1)
    entries, sixth = (rows, columns, matrix.ravel()), matrix.size // 6

    def loss(params: Params, batch: Any) -> jax.Array:
        row, column, value = batch
        image, pixel = params["images"]["factors"][row], params["pixels"]["factors"][column]
        guess = (image * pixel).sum(-1) + params["pixels"]["bias"][column]
        return jnp.square(guess - value).mean()

    return Task(
        "factorization",
        {
            "network": f"rank {RANK}",
            "reach": 0.5,
            "batch": 512,
            "steps": 600,
            "measure": "error of hidden entries",
        },
        split(entries, matrix.size - 2 * sixth, sixth, sixth),
        {
            "images": {"factors": (len(matrix), RANK)},
            "pixels": {"factors": (matrix.shape[1], RANK), "bias": (matrix.shape[1],)},
        },
        loss,
        loss,
    )


WITHOUT_MNIST: dict[str, Callable[[], Task]] = {
    "digits-cnn": digits_cnn,
    "text-logistic": text_logistic,
    "char-transformer": char_transformer,
    "quadratic": quadratic,
    "factorization": factorization,
}
WITH_MNIST: dict[str, Callable[[digits_data.Digits], Task]] = {
    "mnist-cnn": mnist_cnn,
    "mnist-autoencoder": mnist_autoencoder,
}
TITLES = {
    "digits-cnn": "digits, CNN",
    "mnist-cnn": "MNIST, CNN",
    "mnist-autoencoder": "MNIST, autoencoder",
    "text-logistic": "words, logistic",
    "char-transformer": "characters, transformer",
    "quadratic": "noisy quadratic",
    "factorization": "matrix factorization",
}
NAMES = tuple(TITLES)


@functools.cache
def mnist(data_dir: Path | None) -> digits_data.Digits | None:
    """The real images, if they are here; never downloaded."""
    data = digits_data.load("auto", data_dir)
    return data if data.name == "mnist" else None


@functools.cache
def make(name: str, data_dir: Path | None) -> Task | None:
    """The task of this name; None without its data."""
    if name in WITHOUT_MNIST:
        return WITHOUT_MNIST[name]()
    data = mnist(data_dir)
    return None if data is None else WITH_MNIST[name](data)
