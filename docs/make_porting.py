"""Measure what the rules of other frameworks change, and write it into docs/porting.md.

    python docs/make_porting.py            # needs the extra `examples`; some minutes
    python docs/make_porting.py --again    # forget what docs/results/porting.json holds

A small network learns scikit-learn's digits with a line of `compat` and with a line of the library,
from the same start and on the same batches, in float64. Every pair of lines is saved when it is
done, and a stopped run goes on from there.
"""

import argparse
import functools
import inspect
import itertools
import json
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from fill import fill
from jax.flatten_util import ravel_pytree
from rich.progress import track
from sklearn.datasets import load_digits

import optax_adaptive as oa
from optax_adaptive import compat

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "porting.json"
STEPS, BATCH, SEEDS, HIDDEN, TEST = 300, 64, 3, 32, 360
SCALES = {"as it is": 1.0, "small": 1e-4}  # of the loss
TORCH_EPS = 1e-6  # what clip_grad_norm_ adds to the norm


class Rule(NamedTuple):
    """What some constructors compute, and how the library says it."""

    there: tuple[str, ...]  # lines of compat, one for each framework that has this rule
    facts: tuple[str, ...]  # the cells that tell the rules of a family apart
    here: str  # the same rule in the library; "" where there is none
    nearest: str = ""  # what one would write, with the same numbers; "" where that is `here`


class Family(NamedTuple):
    """The table of one optimizer."""

    columns: tuple[str, ...]  # heads of `Rule.facts`
    rules: tuple[Rule, ...]
    others: tuple[tuple[str, str], ...] = ()  # further pairs that are worth a measurement


def same(lines: Iterable[str], *facts: str, here: str, nearest: str = "") -> Rule:
    """A rule, shortly."""
    return Rule(tuple(f"compat.{line}" for line in lines), facts, here, nearest)


FAMILIES = {
    "SGD": Family(
        ("with momentum m", "a step is"),
        (
            same(
                ("torch.SGD(rate, momentum=0.9)",),
                "`b = m b + g`",
                "`rate b`",
                here="oa.sgd(rate, momentum=0.9)",
            ),
            same(
                ("torch.SGD(rate, momentum=0.9, dampening=0.9)",),
                "the same with `0.1 g`, but for the first g",
                "`rate b`",
                here="",
                nearest="oa.sgd(rate, momentum=0.9)",
            ),
            same(
                ("tf1.MomentumOptimizer(rate, 0.9)", "tfjs.momentum(rate, 0.9)"),
                "`b = m b + g`",
                "`rate b`",
                here="oa.sgd(rate, momentum=0.9)",
            ),
            same(
                ("keras.SGD(rate, 0.9)", "keras_legacy.SGD(rate, 0.9)"),
                "`v = m v + rate g`",
                "`v`",
                here="oa.descend(optax.identity(), rate, velocity=oa.trace(0.9))",
                nearest="oa.sgd(rate, momentum=0.9)",
            ),
        ),
    ),
    "ADAGRAD": Family(
        ("divides by", "sum starts at"),
        (
            same(
                ("torch.Adagrad(0.1)",),
                "`sqrt(sum) + eps`",
                "0",
                here="oa.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False)",
                nearest="oa.adagrad(0.1, 0.0, 1e-10)",
            ),
            same(
                ("keras.Adagrad(0.1)", "tfjs.adagrad(0.1)"),
                "`sqrt(sum + eps)`",
                "0.1",
                here="oa.adagrad(0.1)",
            ),
            same(
                ("keras_legacy.Adagrad(0.1)",),
                "`sqrt(sum) + eps`",
                "0.1",
                here="oa.adagrad(0.1, eps_in_sqrt=False)",
                nearest="oa.adagrad(0.1)",
            ),
            same(
                ("tf1.AdagradOptimizer(0.1)",),
                "`sqrt(sum)`",
                "0.1",
                here="oa.adagrad(0.1, eps=0.0)",
                nearest="oa.adagrad(0.1)",
            ),
        ),
        (("compat.torch.Adagrad(0.1)", "oa.adagrad(0.1)"),),
    ),
    "RMSPROP": Family(
        ("divides by", "mean starts at", "momentum of"),
        (
            same(
                ("torch.RMSprop(0.001)",),
                "`sqrt(v) + eps`",
                "0",
                "directions",
                here="oa.rmsprop(0.001, 0.99, eps_in_sqrt=False)",
                nearest="oa.rmsprop(0.001, 0.99)",
            ),
            same(
                ("keras.RMSprop(0.001)", "tfjs.rmsprop(0.001)"),
                "`sqrt(v + eps)`",
                "0",
                "steps",
                here="oa.rmsprop(0.001, eps=1e-7)",
            ),
            same(
                ("keras_legacy.RMSprop(0.001)",),
                "`sqrt(v) + eps`; with momentum `sqrt(v + eps)`",
                "0",
                "steps",
                here="oa.rmsprop(0.001, eps=1e-7, eps_in_sqrt=False)",
                nearest="oa.rmsprop(0.001, eps=1e-7)",
            ),
            same(
                ("tf1.RMSPropOptimizer(0.001)",),
                "`sqrt(v + eps)`",
                "1",
                "steps",
                here="oa.rmsprop(0.001, eps=1e-10, initial_scale=1.0)",
                nearest="oa.rmsprop(0.001, eps=1e-10)",
            ),
        ),
        (
            (
                "compat.torch.RMSprop(0.001, centered=True)",
                "oa.rmsprop(0.001, 0.99, centered=True)",
            ),
            ("compat.torch.RMSprop(0.001)", "oa.rmsprop(0.001)"),
        ),
    ),
    "ADADELTA": Family(
        ("rule",),
        (
            same(("torch.Adadelta()",), "the paper's", here="oa.adadelta()"),
            same(
                ("keras.Adadelta(1.0)", "keras_legacy.Adadelta(1.0)"),
                "the paper's",
                here="oa.adadelta(1.0, rho=0.95, eps=1e-7)",
            ),
            same(
                ("tf1.AdadeltaOptimizer(1.0)",),
                "the paper's",
                here="oa.adadelta(1.0, rho=0.95, eps=1e-8)",
            ),
            same(
                ("tfjs.adadelta(1.0)",),
                "gradient descent; `rho` and `epsilon` do nothing",
                here="oa.sgd(1.0)",
                nearest="oa.adadelta(1.0, rho=0.95, eps=1e-7)",
            ),
        ),
    ),
    "ADAM": Family(
        ("divides by", "largest so far, with amsgrad"),
        (
            same(
                ("torch.Adam()",),
                "`sqrt(v / c) + eps`",
                "of `v`",
                here="oa.adam(0.001)",
            ),
            same(
                ("tfjs.adam()",),
                "`sqrt(v / c) + eps`",
                "none",
                here="oa.adam(0.001, eps=1e-7)",
            ),
            same(
                ("keras.Adam()", "keras_legacy.Adam()"),
                "`(sqrt(v) + eps) / sqrt(c)`",
                "of `v`",
                here="oa.adam(0.001, eps=1e-7, eps_hat=True)",
                nearest="oa.adam(0.001, eps=1e-7)",
            ),
            same(
                ("tf1.AdamOptimizer()",),
                "`(sqrt(v) + eps) / sqrt(c)`",
                "none",
                here="oa.adam(0.001, eps_hat=True)",
                nearest="oa.adam(0.001)",
            ),
            same(
                ("torch.Adam(amsgrad=True)",),
                "`sqrt(v / c) + eps`",
                "of `v`",
                here="oa.amsgrad(0.001)",
            ),
            same(
                ("keras.Adam(amsgrad=True)", "keras_legacy.Adam(amsgrad=True)"),
                "`(sqrt(v) + eps) / sqrt(c)`",
                "of `v`",
                here="oa.amsgrad(0.001, eps=1e-7, eps_hat=True)",
                nearest="oa.amsgrad(0.001, eps=1e-7)",
            ),
        ),
        (
            ("compat.keras.Adam(epsilon=1e-3)", "oa.adam(0.001, eps=1e-3)"),
            ("compat.torch.Adam(amsgrad=True)", "optax.amsgrad(0.001)"),
        ),
    ),
    "ADAMW": Family(
        ("divides by", "p shrinks by"),
        (
            same(
                ("torch.AdamW()",),
                "`sqrt(v / c) + eps`",
                "`rate weight_decay p`",
                here="oa.adamw(0.001, weight_decay=0.01)",
            ),
            same(
                ("keras.AdamW()",),
                "`(sqrt(v) + eps) / sqrt(c)`",
                "`rate weight_decay p`",
                here="oa.adamw(0.001, eps=1e-7, weight_decay=0.004, eps_hat=True)",
                nearest="oa.adamw(0.001, eps=1e-7, weight_decay=0.004)",
            ),
            same(
                ("torch.Adam(weight_decay=0.01)",),
                "`sqrt(v / c) + eps`",
                "nothing: `g + weight_decay p` is the gradient",
                here="optax.chain(optax.add_decayed_weights(0.01), oa.adam(0.001))",
                nearest="oa.adamw(0.001, weight_decay=0.01)",
            ),
        ),
        (("compat.torch.AdamW()", "oa.adamw(0.001)"),),
    ),
    "NADAM": Family(
        ("momentum at step t", "as large as it gets after"),
        (
            same(
                ("torch.NAdam()",),
                "`b1 (1 - 0.5 0.96^(t / 250))`",
                "25,000 steps",
                here="oa.nadam(0.002, momentum_decay=0.004)",
                nearest="oa.nadam(0.002)",
            ),
            same(
                ("keras_legacy.Nadam(0.002)",),
                "`b1 (1 - 0.5 0.96^(t / 250))`",
                "25,000 steps",
                here="oa.nadam(0.002, eps=1e-7, momentum_decay=0.004)",
                nearest="oa.nadam(0.002, eps=1e-7)",
            ),
            same(
                ("keras.Nadam(0.002)",),
                "`b1 (1 - 0.5 0.96^t)`",
                "100 steps",
                here="oa.nadam(0.002, eps=1e-7, momentum_decay=1.0)",
                nearest="oa.nadam(0.002, eps=1e-7)",
            ),
        ),
        (
            ("compat.keras.Nadam(0.002)", "compat.keras_legacy.Nadam(0.002)"),
            ("compat.torch.NAdam()", "compat.keras.Nadam()"),
        ),
    ),
    "ADAMAX": Family(
        ("largest", "divides by"),
        (
            same(
                ("torch.Adamax()",),
                "`u = max(b2 u, abs(g) + eps)`",
                "`u`",
                here="oa.adamax(0.002)",
            ),
            same(
                (
                    "keras.Adamax(0.002)",
                    "keras_legacy.Adamax(0.002)",
                    "tfjs.adamax()",
                ),
                "`u = max(b2 u, abs(g))`",
                "`u + eps`",
                here="oa.adamax(0.002, eps=1e-7, eps_in_max=False)",
                nearest="oa.adamax(0.002, eps=1e-7)",
            ),
        ),
    ),
    "RADAM": Family(
        ("divides by", "adaptive from step"),
        (
            same(
                ("torch.RAdam()",),
                "`(sqrt(v) + eps) / sqrt(c)`",
                "6",
                here="oa.radam(0.001, eps_hat=True)",
                nearest="oa.radam(0.001)",
            ),
        ),
        (("compat.torch.RAdam()", "oa.radam(0.001, threshold=4.0, eps_hat=True)"),),
    ),
    "ADABOUND": Family(
        ("weight_decay",),
        (
            same(
                ("torch.AdaBound()", "keras.AdaBound()"),
                "added to the gradient",
                here="oa.adabound()",
            ),
            same(
                ("torch.AdaBound(weight_decay=0.01)", "keras.AdaBound(weight_decay=0.01)"),
                "added to the gradient",
                here="optax.chain(optax.add_decayed_weights(0.01), oa.adabound())",
                nearest="oa.adabound(weight_decay=0.01)",
            ),
            same(
                ("torch.AdaBoundW(weight_decay=0.01)",),
                "p shrinks by `weight_decay p`, whatever the rate",
                here="oa.adabound(weight_decay=0.01 / 0.001)",
                nearest="oa.adabound(weight_decay=0.01)",
            ),
        ),
        (("compat.torch.AdaBound(amsbound=True)", "oa.amsbound()"),),
    ),
}
CLIPPED = (
    (
        "optax.chain(torch_clip(0.5), compat.torch.SGD(0.1))",
        "optax.chain(optax.clip_by_global_norm(0.5), oa.sgd(0.1))",
    ),
    (
        "compat.keras.SGD(0.1, global_clipnorm=0.5)",
        "optax.chain(optax.clip_by_global_norm(0.5), oa.sgd(0.1))",
    ),
    (
        "compat.keras.SGD(0.1, clipnorm=0.5)",
        "optax.chain(optax.clip_by_global_norm(0.5), oa.sgd(0.1))",
    ),
)
DEFAULTS = {
    "SGD": ("torch.SGD", "keras.SGD", "keras_legacy.SGD", "", ""),
    "AdaGrad": ("torch.Adagrad", "keras.Adagrad", "keras_legacy.Adagrad", "", ""),
    "RMSprop": ("torch.RMSprop", "keras.RMSprop", "keras_legacy.RMSprop", "", ""),
    "AdaDelta": (
        *("torch.Adadelta", "keras.Adadelta", "keras_legacy.Adadelta"),
        *("tf1.AdadeltaOptimizer", "tfjs.adadelta"),
    ),
    "Adam": ("torch.Adam", "keras.Adam", "keras_legacy.Adam", "tf1.AdamOptimizer", "tfjs.adam"),
    "AdamW": ("torch.AdamW", "keras.AdamW", "", "", ""),
    "NAdam": ("torch.NAdam", "keras.Nadam", "keras_legacy.Nadam", "", ""),
    "Adamax": ("torch.Adamax", "keras.Adamax", "keras_legacy.Adamax", "", "tfjs.adamax"),
    "RAdam": ("torch.RAdam", "", "", "", ""),
    "AdaBound": ("torch.AdaBound", "keras.AdaBound", "", "", ""),
}
# The control: how far float32's rounding of the start alone takes a run.
ROUNDED = "rounded start"


def nearest_pairs() -> Iterator[tuple[str, str]]:
    """What is compared for the tables of differences: a line there and the plain one here."""
    for family in FAMILIES.values():
        yield from family_pairs(family)
    yield from CLIPPED


def family_pairs(family: Family) -> Iterator[tuple[str, str]]:
    """Those of one family."""
    for rule in family.rules:
        yield rule.there[0], rule.nearest or rule.here
    yield from family.others


def exact_pairs() -> Iterator[tuple[str, str]]:
    """Lines of compat and their translations, which must be one rule."""
    for family in FAMILIES.values():
        for rule in family.rules:
            for line in rule.there:
                if rule.here:
                    yield line, rule.here


def default_lines() -> Iterator[str]:
    """What one gets who pastes the name alone."""
    for names in DEFAULTS.values():
        yield from (f"compat.{name}()" for name in names if name)


def optimizer_of(line: str) -> optax.GradientTransformation:
    """The optimizer that a line makes; the line itself is what the page shows."""
    dropped = optax.piecewise_constant_schedule(0.1, {STEPS // 2: 0.1})
    names = {"oa": oa, "compat": compat, "optax": optax, "rate": dropped, "torch_clip": torch_clip}
    return eval(line, names)


def torch_clip(most: float) -> optax.GradientTransformation:
    """`torch.nn.utils.clip_grad_norm_`."""

    def clip(grads, _):
        factor = jnp.minimum(1, most / (optax.tree.norm(grads) + TORCH_EPS))
        return jax.tree.map(lambda g: g * factor, grads)

    return optax.stateless(clip)


@functools.cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Images of 8x8 pixels in [0, 1], shuffled, and their labels."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order] / 16, y[order]


def start_of(seed: int) -> dict[str, Any]:
    """Glorot's kernels and biases of 0."""
    rng, params = np.random.default_rng((1, seed)), {}
    for i, (n, m) in enumerate(itertools.pairwise((64, HIDDEN, 10))):
        limit = np.sqrt(6 / (n + m))
        params[f"d{i}"] = {"kernel": rng.uniform(-limit, limit, (n, m)), "bias": np.zeros(m)}
    return params


def batches_of(seed: int) -> np.ndarray:
    """The examples of every step: each epoch in an order of its own, without its last few."""
    per_epoch = (len(data()[0]) - TEST) // BATCH
    rng = np.random.default_rng((2, seed))
    epochs = [rng.permutation(len(data()[0]) - TEST) for _ in range(-(-STEPS // per_epoch))]
    return np.concatenate([e[: per_epoch * BATCH] for e in epochs]).reshape(-1, BATCH)[:STEPS]


def seldom() -> np.ndarray:
    """1 for the weights of pixels that are lit in less than a twentieth of the images."""
    lit = (data()[0][:-TEST] > 0).mean(0)
    params = jax.tree.map(np.zeros_like, start_of(0))
    params["d0"]["kernel"] += (lit < 0.05)[:, None]
    return np.asarray(ravel_pytree(params)[0])


@functools.lru_cache(maxsize=8)
def run(line: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters after each step by scale and seed, then loss and accuracy at the end."""
    rounded = line == ROUNDED
    tx = optax.with_extra_args_support(optimizer_of("compat.keras.Adam()" if rounded else line))
    images, labels = (jnp.asarray(a) for a in data())

    def loss_of(params, x, y):
        hidden = jax.nn.relu(x @ params["d0"]["kernel"] + params["d0"]["bias"])
        logits = hidden @ params["d1"]["kernel"] + params["d1"]["bias"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss, jnp.mean(logits.argmax(-1) == y)

    def train(scale, params, batches):
        def step(carry, batch):
            params, state = carry
            chosen = images[batch], labels[batch]
            grads = jax.grad(lambda p: scale * loss_of(p, *chosen)[0])(params)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), ravel_pytree(params)[0]

        (end, _), path = jax.lax.scan(step, (params, tx.init(params)), batches)
        loss, _ = loss_of(end, images[:-TEST], labels[:-TEST])
        _, accuracy = loss_of(end, images[-TEST:], labels[-TEST:])
        return jnp.concatenate([ravel_pytree(params)[0][None], path]), loss, accuracy

    starts = [start_of(seed) for seed in range(SEEDS)]
    if rounded:
        starts = jax.tree.map(lambda x: np.float64(np.float32(x)), starts)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    batches = jnp.stack([batches_of(seed) for seed in range(SEEDS)])
    over_seeds = jax.vmap(train, (None, 0, 0))
    trained = jax.jit(jax.vmap(over_seeds, (0, None, None)))
    found = trained(jnp.array(list(SCALES.values())), params, batches)
    path, loss, accuracy = (np.asarray(x) for x in found)
    return path, loss, accuracy


def compared(there: str, here: str) -> dict[str, Any]:
    """How far two lines get from each other, the largest over the seeds, by scale of the loss."""
    theirs, ours = run(there), run(here)
    found: dict[str, Any] = {"there": there, "here": here}
    for i, scale in enumerate(SCALES):
        (p, loss, accuracy), (q, our_loss, our_accuracy) = (
            [x[i] for x in y] for y in (theirs, ours)
        )
        rel = (abs(p - q).max(-1) / abs(p).max(-1)).max()
        apart, way = ((a - b) ** 2 for a, b in ((p[:, -1], q[:, -1]), (p[:, -1], p[:, 0])))
        numbers = {
            "rel": rel,
            "disp": np.sqrt(apart.sum(-1) / way.sum(-1)).max(),
            "loss": (abs(loss - our_loss) / loss).max(),
            "accuracy": abs(accuracy - our_accuracy).max(),
            # How much of the squared distance lies in the weights of pixels that are seldom lit.
            "seldom": ((apart * seldom()).sum(-1) / np.maximum(apart.sum(-1), 1e-300)).min(),
        }
        # JSON has no NaN.
        found[scale] = {
            k: float(f"{x:.3g}") if np.isfinite(x) else None for k, x in numbers.items()
        }
    return found


def ended(line: str) -> dict[str, Any]:
    """Where a line ends, as a mean over the seeds, with the loss as it is."""
    _, loss, accuracy = run(line)
    return {
        "line": line,
        "loss": float(f"{loss[0].mean():.4g}"),
        "accuracy": float(f"{accuracy[0].mean():.4g}"),
    }


def measure(again: bool) -> dict[str, Any]:
    """Everything, but for what is there already."""
    settings = {
        "steps": STEPS,
        "batch": BATCH,
        "seeds": SEEDS,
        "hidden": HIDDEN,
        "jax": jax.__version__,
        "optax": optax.__version__,
    }
    results: dict[str, Any] = {"settings": settings, "pairs": [], "defaults": []}
    if RESULTS.exists() and not again:
        kept = json.loads(RESULTS.read_text())
        results = kept if kept["settings"] == settings else results
    pairs = dict.fromkeys([("compat.keras.Adam()", ROUNDED), *nearest_pairs(), *exact_pairs()])
    lines = list(dict.fromkeys(default_lines()))
    had = {(row["there"], row["here"]): row for row in results["pairs"]}
    ends = {row["line"]: row for row in results["defaults"]}
    # Sorted, so that a line which is in several pairs is trained once.
    for job in track([*sorted(pairs), *lines], description="Training"):
        if isinstance(job, tuple):
            had[job] = had.get(job) or compared(*job)
        else:
            ends[job] = ends.get(job) or ended(job)
        results["pairs"] = [had[pair] for pair in pairs if pair in had]
        results["defaults"] = [ends[line] for line in lines if line in ends]
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return results


def in_words(numbers: dict[str, float | None]) -> str:
    """How much of it one sees: in the parameters whether it is anything, then in the loss."""
    rel, loss = numbers["rel"], numbers["loss"]
    if rel is None or loss is None:
        return "NaN"
    if rel < 1e-12:
        return "the same"
    if loss < 1e-3:
        return "invisible"
    return "visible" if loss < 0.05 else "another run"


def short(x: float | None) -> str:
    """Its magnitude is what matters."""
    if x is None:
        return "NaN"
    if x < 1e-12:
        return "0"
    return f"{x:.0e}".replace("e-0", "e-") if x < 1e-4 else f"{x:.2g}"


def cell(numbers: dict[str, float | None]) -> str:
    """In words, then the numbers."""
    words = in_words(numbers)
    if words == "the same":
        return words
    parts = (short(numbers[k]) for k in ("rel", "disp", "loss"))
    return f"{words}<br>{' / '.join(parts)}"


def plain(line: str) -> str:
    """A line as the page shows it."""
    return line.removeprefix("compat.").replace("compat.", "")


def name_of(line: str) -> str:
    """The constructor in a line."""
    return line.removeprefix("compat.").partition("(")[0]


def defaults_of(line: str) -> str:
    """The numbers that a constructor has by default, but for what a column or the page tells."""
    takes = inspect.signature(operator.attrgetter(name_of(line))(compat)).parameters.values()
    shown = []
    for p in takes:
        name = "rate" if p.name in ("lr", "learning_rate") else p.name
        value = 1e-7 if (p.name, p.default) == ("epsilon", None) else p.default
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD:
            shown.append(f"{name} required")
        elif type(value) in (int, float) and value and name not in _TOLD:
            shown.append(f"{name} {value:g}".replace("e-0", "e-"))
    return ", ".join(shown).replace("_", " ")


_TOLD = ("beta_1", "beta_2", "beta1", "beta2", "ema_momentum", "initial_accumulator_value")


def rules(family: Family) -> Iterator[str]:
    """What each framework computes, and its translation."""
    heads = ["`compat.`, and its defaults", *family.columns, "in the library"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for rule in family.rules:
        options = rule.there[0].partition("(")[2]
        marks = [w for w in ("amsgrad=True", "dampening=0.9", "weight_decay=0.01") if w in options]
        told: dict[str, list[str]] = {}  # the names by what there is to tell about them
        for line in rule.there:
            about = f"with `{marks[0]}`" if marks else defaults_of(line)
            told.setdefault(about, []).append(f"`{name_of(line)}`")
        cells = ("<br>".join([*names, about]) for about, names in told.items())
        first = "<br>".join(cells)
        here = f"`{rule.here}`" if rule.here else "only in `compat`"
        yield "| " + " | ".join([first, *rule.facts, here]) + " |"


def differences(pairs: Iterable[tuple[str, str]], results: dict[str, Any]) -> Iterator[str]:
    """What is measured between lines there and the plain ones here."""
    had = {(row["there"], row["here"]): row for row in results["pairs"]}
    yield "| there | here, with the same numbers | loss as it is | loss / 10,000 |"
    yield "|---|---|---|---|"
    for there, here in pairs:
        cells = [cell(had[there, here][scale]) for scale in SCALES]
        yield f"| `{plain(there)}` | `{plain(here)}` | {' | '.join(cells)} |"


def defaults(results: dict[str, Any]) -> Iterator[str]:
    """Where each framework's own defaults end."""
    ends = {row["line"]: row for row in results["defaults"]}
    yield "| | torch | Keras 3 | Keras 2 | TF 1 | TF.js |"
    yield "|---|---|---|---|---|---|"
    for optimizer, names in DEFAULTS.items():
        cells = []
        for name in names:
            end = ends.get(f"compat.{name}()")
            cells.append(f"{end['loss']:.3f}, {100 * end['accuracy']:.1f} %" if end else "")
        yield f"| {optimizer} | {' | '.join(cells)} |"


def control(results: dict[str, Any]) -> Iterator[str]:
    """The task, its control, and how exact the translations are."""
    had = {(row["there"], row["here"]): row for row in results["pairs"]}
    s = results["settings"]
    exact = max(had[pair]["as it is"]["disp"] for pair in exact_pairs())
    start = had["compat.keras.Adam()", ROUNDED]["as it is"]
    rounding = " / ".join(short(start[k]) for k in ("rel", "disp", "loss"))
    yield (
        f"The task: {s['steps']} steps of {s['batch']} of scikit-learn's digits, 8 x 8 pixels, "
        f"Dense({s['hidden']}, relu) -> Dense(10), {s['seeds']} seeds, float64, jax {s['jax']}. "
        f"For scale: a start that is rounded to float32 gives {rounding}. No translation in the "
        f"tables ends further than {short(exact)} of the way from its line of `compat`, and most "
        "are equal to the last bit: what is left comes from the numbers that Keras 2 and "
        "TensorFlow 1 keep in float32."
    )


def seldom_lit(results: dict[str, Any]) -> Iterator[str]:
    """Where the difference of RMSprop is."""
    had = {(row["there"], row["here"]): row for row in results["pairs"]}
    share = had["compat.torch.RMSprop(0.001)", "oa.rmsprop(0.001, 0.99)"]["as it is"]["seldom"]
    pixels = int(seldom().sum()) // HIDDEN
    yield (
        "The digits have such gradients even with the loss as it is: "
        f"{100 * share:.0f} % or more of the squared distance between `torch.RMSprop` "
        "and the line beside it lies in the weights of "
        f"{pixels} of the 64 pixels, those lit in less than a twentieth of the images."
    )


def sections(results: dict[str, Any]) -> dict[str, list[str]]:
    """What the page holds between its markers."""
    made = {"CONTROL": list(control(results)), "DEFAULTS": list(defaults(results))}
    for name, family in FAMILIES.items():
        made[name] = [*rules(family), "", *differences(family_pairs(family), results)]
    made["SELDOM"] = list(seldom_lit(results))
    made["CLIPPING"] = list(differences(CLIPPED, results))
    return made


def main() -> None:
    """Measure, and fill the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="measure everything again")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    for name, lines in sections(measure(args.again)).items():
        fill(HERE / "porting.md", name, lines)


if __name__ == "__main__":
    main()
