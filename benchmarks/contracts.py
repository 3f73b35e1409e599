"""What does an optimizer do when it gets hard? Here, in optax, in torch and in Keras, in one run.

    python benchmarks/contracts.py && python docs/make_contracts.py    # a minute on two cores

bfloat16 parameters, a spike, a NaN, a wrong argument: one row each, measured in every one of these
libraries that is installed, each used as its own pages say, with defaults as they come. Keras runs
on JAX. Gradients come from a fixed seed and no clock is involved: every run gives the same cells.
Prints a table and writes results/contracts.json, which docs/make_contracts.py puts into the pages.
"""

import datetime
import functools
import importlib.metadata
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax
import optax.contrib
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_diabetes

import optax_adaptive as oa

RESULTS = Path(__file__).resolve().parent / "results" / "contracts.json"
HERE, OPTAX, TORCH, KERAS = "here", "optax", "torch", "Keras"
BF16 = "bfloat16"
torch, keras = (
    importlib.import_module(name) if importlib.util.find_spec(name) else None
    for name in ("torch", "keras")
)
MODULES: dict[str, Any] = {HERE: oa, OPTAX: optax}
MODULES |= {TORCH: torch.optim} if torch else {}
MODULES |= {KERAS: keras.optimizers} if keras else {}
Cell = dict[str, Any]

# --- one optimizer of any library -----------------------------------------------------------------

CLASSES = {"adadelta": "Adadelta", "adam": "Adam", "adamw": "AdamW", "lion": "Lion"}


def make(lib: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """The optimizer; in torch a function of the parameters."""
    made = getattr(MODULES[lib], name if lib in (HERE, OPTAX) else CLASSES[name])
    return made(*args, **kwargs) if lib != TORCH else lambda params: made(params, *args, **kwargs)


def begin(opt: Any, start: np.ndarray, dtype: str = "float32", wide: bool = False) -> Any:
    """Parameters, state and the pure step of an optimizer on JAX; `wide`: init sees float32."""
    exact = {"kernel": jnp.asarray(start, jnp.float32)}
    params = optax.tree.cast(exact, dtype)

    def step(params, state, g):
        updates, state = opt.update({"kernel": g}, state, params)
        return optax.apply_updates(params, updates), state

    if isinstance(opt, optax.GradientTransformation):
        return params, opt.init(exact if wide else params), step
    opt.build([keras.Variable(start, dtype=dtype, name="kernel")])
    names = [v.name for v in opt.variables]

    def keras_step(params, state, g):
        if "dynamic_scale" in names:  # which the loss is multiplied by
            g = g * state[names.index("dynamic_scale")]
        (new,), state = opt.stateless_apply(state, [g], [params["kernel"]])
        return {"kernel": new}, state

    return params, [v.value for v in opt.variables], keras_step


def walk(
    opt: Any,
    start: np.ndarray,
    grads: Any,
    dtype: str = "float32",
    *,
    held: bool = False,
    wide: bool = False,
) -> np.ndarray:
    """The parameter after every step; `held`: every step begins at the start again.

    `grads` are given, step by step, or a function of the parameter, for 300 steps.
    """
    gradient = grads if callable(grads) else None
    given = np.zeros(300) if gradient else grads
    if inspect.isfunction(opt):
        return np.stack([*torch_walk(opt, start, given, dtype, held, gradient)])
    params, state, step = begin(opt, start, dtype, wide)

    def scanned(carry, g):
        new, state = step(*carry, gradient(carry[0]["kernel"]) if gradient else g)
        return (carry[0] if held else new, state), new["kernel"].astype(jnp.float32)

    run = jax.jit(lambda carry, given: jax.lax.scan(scanned, carry, given)[1])
    return np.asarray(run((params, state), jnp.asarray(given, dtype)))


def torch_walk(
    opt: Any, start: Any, given: Iterable[Any], dtype: str, held: bool = False, gradient: Any = None
) -> Iterator[np.ndarray]:
    """The same as `walk`, one step after the other."""
    first = torch.tensor(start).to(getattr(torch, dtype))
    p = torch.nn.Parameter(first.clone())
    optimizer = opt([p])
    for g in given:
        if held:
            p.data.copy_(first)
        p.grad = torch.tensor(gradient(p.detach().numpy()) if gradient else g).to(p.dtype)
        optimizer.step()
        yield p.detach().to(torch.float32, copy=True).numpy()


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# --- the rows: a docstring is the name of its row -------------------------------------------------

# Where another name, with this argument, makes it.
ELSEWHERE = {
    OPTAX: {"dadapt_adam": ("dadapt_adamw", "weight_decay")},
    TORCH: {"amsgrad": ("Adam", "amsgrad"), "nadamw": ("NAdam", "decoupled_weight_decay")},
    KERAS: {
        "amsgrad": ("Adam", "amsgrad"),
        "nadamw": ("Nadam", "weight_decay"),
        "adamaxw": ("Adamax", "weight_decay"),
    },
}


def optimizers(lib: str) -> dict[str, Any]:
    """The optimizers of a library: those of its class, or what takes a learning rate first."""
    if lib == HERE:
        return dict(oa.optimizers)
    if lib != OPTAX:
        base, around = MODULES[lib].Optimizer, ("LossScaleOptimizer", "MultiOptimizer")
        classes = {n: x for n, x in vars(MODULES[lib]).items() if inspect.isclass(x)}
        found = {n: x for n, x in classes.items() if issubclass(x, base) and x is not base}
        return {n: x for n, x in found.items() if n not in around}
    functions = {
        name: f
        for name, f in {**vars(optax), **vars(optax.contrib)}.items()
        if inspect.isfunction(f) or isinstance(f, functools.partial)
        if not name.startswith(("_", "scale_by"))
    }
    first = {name: [*inspect.signature(f).parameters, ""][0] for name, f in functions.items()}
    return {n: f for n, f in functions.items() if first[n].endswith("learning_rate")}


def have(lib: str) -> Cell:
    """how many of the optimizers here it has"""

    def plain(name: str) -> str:
        return name.lower().replace("_", "")

    found = optimizers(lib)
    names = {plain(name): name for name in found}
    for name, (where, argument) in ELSEWHERE.get(lib, {}).items():
        if argument in inspect.signature(found[where]).parameters:
            names[plain(name)] = where
    has = [name for name in oa.optimizers if plain(name) in names]
    used = {names[plain(name)] for name in has}
    return {"has": has, "own": sorted(name for name in found if name not in used)}


def have_text(cell: Cell) -> str:
    own = len(cell["own"])
    return f"{len(cell['has'])}" + (f", and {own} of its own" if own else "")


def stores(lib: str) -> dict[str, tuple[Any, str, bool]]:
    """AdamW, and how its parameters are kept: optimizer, their dtype, `wide`."""
    made = functools.partial(make, lib, "adamw", 1e-5, weight_decay=0.01)
    found = {"plain": (made(), BF16, False), "float32 parameters": (made(), "float32", False)}
    if lib == HERE:
        coded = oa.with_quantized_state(made())
        for around in (oa.stochastic_rounding, oa.master_weights):
            found[around.__name__] = (around(coded), BF16, True)
    if lib == OPTAX:
        found["float32 parameters, mu_dtype"] = (made(mu_dtype=BF16), "float32", False)
    return found


def size_of(opt: Any, dtype: str, wide: bool, start: np.ndarray) -> float:
    """Bytes of parameters and state, per parameter."""
    if inspect.isfunction(opt):
        p = torch.nn.Parameter(torch.tensor(start).to(getattr(torch, dtype)))
        optimizer, p.grad = opt([p]), torch.zeros_like(p)
        optimizer.step()
        arrays = [p, *(x for x in optimizer.state[p].values() if x.ndim)]
    else:
        params, state, _ = begin(opt, start, dtype, wide)
        arrays = [x for x in jax.tree.leaves((params, state)) if jnp.ndim(x)]
    return sum(x.nbytes for x in arrays) / start.size


@functools.cache
def ways(lib: str) -> dict[str, tuple[float, float]]:
    """How far AdamW gets, of the way with float32 parameters; and its bytes."""
    numbers = normal(602, 32, 128)
    start, grads = 0.05 * numbers[0], numbers[1] + 2 * numbers[2:]
    found = stores(lib)
    ends = {
        name: walk(opt, start, grads, dtype, wide=wide)[-1] - start
        for name, (opt, dtype, wide) in found.items()
    }
    full = ends["float32 parameters"]
    return {
        name: (float((ends[name] * full).sum() / (full * full).sum()), size_of(*how, start))
        for name, how in found.items()
    }


def share(lib: str) -> Cell:
    """AdamW at a rate of 1e-5 on bfloat16 parameters: how far it gets, of the way in float32"""
    return {"share": ways(lib)["plain"][0]}


def fewest(lib: str) -> Cell:
    """the fewest bytes, parameter and state, in which it gets 95 % of that way"""
    tried = ways(lib)
    how = min((k for k in tried if tried[k][0] >= 0.95), key=lambda k: tried[k][1])
    return {"bytes": tried[how][1], "how": how, "tried": tried}


def fewest_text(cell: Cell) -> str:
    how, _, argument = cell["how"].partition(", ")
    return f"{cell['bytes']:.2f} ({' and '.join([how, argument] if argument else [how])})"


def shrunk(lib: str) -> Cell:
    """Adam on bfloat16 parameters, 3,000 steps after gradients became 10 times smaller: its steps,
    of those in float32"""
    grads = 1 + normal(4000, 16)
    grads[1000:] *= 0.1
    narrow, full = (
        np.abs(walk(make(lib, "adam", 1e-3), np.zeros(16), grads, dtype, held=True)[-500:]).mean()
        for dtype in (BF16, "float32")
    )
    return {"share": float(narrow / full)}


def zero(lib: str) -> Cell:
    """Adam on a float16 parameter whose gradient is 0"""
    end = walk(make(lib, "adam", 1e-3), np.ones(2), np.zeros((10, 2)), "float16")[-1]
    return {"end": None if np.isnan(end).any() else end.tolist()}


def clipped(lib: str, opt: Any) -> Any:
    """Every library's own way to bound a gradient by its norm."""
    if lib == HERE:
        return oa.guard(opt, clip_above=3.0)
    if lib == OPTAX:
        return optax.chain(optax.clip_by_global_norm(6.0), opt)
    if lib == KERAS:
        return keras.optimizers.Adam.from_config(opt.get_config() | {"clipnorm": 6.0})

    def with_hook(params):
        made = opt(params)
        clip = torch.nn.utils.clip_grad_norm_
        made.register_step_pre_hook(lambda *_: [None, clip(params, 6.0)][0])
        return made

    return with_hook


def until_back(opt: Any, horizon: int = 10_000) -> int | str | None:
    grads = np.ones((horizon + 201, 4), np.float32)  # their norm is 2
    grads[200] = 1e20
    steps = np.abs(walk(opt, np.zeros(4, np.float32), grads, held=True)[:, 0])
    if not np.isfinite(steps).all():
        return "NaN"
    small = np.flatnonzero(steps[201:] < steps[199] / 2)
    late = int(small[-1]) + 1 if len(small) else 0
    return late if late < horizon else None


def spike(lib: str) -> Cell:
    """one gradient of 1e20: after how many steps those of Adam, b2 0.95, have half their size
    again; the same with gradients clipped by their norm"""
    b2 = {TORCH: {"betas": (0.9, 0.95)}, KERAS: {"beta_2": 0.95}}.get(lib, {"b2": 0.95})
    opt = make(lib, "adam", 1e-3, **b2)
    return {"clipped": until_back(clipped(lib, opt)), "plain": until_back(opt)}


def spike_text(cell: Cell) -> str:
    plain, clipped = (
        "never" if x is None else x if isinstance(x, str) else f"{x:,}"
        for x in (cell["plain"], cell["clipped"])
    )
    return f"{plain}; clipped: {clipped}"


class Scaled:
    """torch's GradScaler around an optimizer."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.scaler = optimizer, torch.amp.GradScaler("cpu")

    def step(self) -> None:
        for p in self.optimizer.param_groups[0]["params"]:
            p.grad = self.scaler.scale(p.grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def guarded(lib: str, opt: Any) -> Any:
    """Every library's own way to leave a step out."""
    if lib == HERE:
        return oa.guard(opt)
    if lib == OPTAX:
        return optax.apply_if_finite(opt, 5)
    return keras.optimizers.LossScaleOptimizer(opt) if lib == KERAS else lambda p: Scaled(opt(p))


def one_nan(lib: str) -> Cell:
    """a NaN in one batch: how far from the run without that batch Adam ends; the same with `guard`,
    `apply_if_finite`, `GradScaler`, `LossScaleOptimizer`"""
    good = normal(100, 8)
    bad = np.insert(good, 20, np.nan, axis=0)

    def apart(around: Callable[[str, Any], Any]) -> float | None:
        ends = [walk(around(lib, make(lib, "adam", 1e-3)), np.ones(8), g)[-1] for g in (good, bad)]
        distance = float(np.abs(ends[0] - ends[1]).max())
        return distance if np.isfinite(distance) else None

    return {"plain": apart(lambda _, opt: opt), "guarded": apart(guarded)}


def nan_text(cell: Cell) -> str:
    plain, guarded = ("NaN" if x is None else f"{x:g}" for x in (cell["plain"], cell["guarded"]))
    return f"{plain}; guarded: {guarded}"


def errors(lib: str) -> Cell:
    """AdamW with one of seven wrong arguments, or a gradient of another shape: errors that name
    it"""
    rate, eps = "lr" if lib == TORCH else "learning_rate", "epsilon" if lib == KERAS else "eps"
    b2 = {TORCH: {"betas": (0.9, 1.0)}, KERAS: {"beta_2": 1.0}}.get(lib, {"b2": 1.0})
    named = r"learning[_ ]rate|\blr\b"
    calls: dict[str, tuple[str, dict[str, Any]]] = {  # its name in a message, the arguments
        **{f"{rate}={x!r}": (named, {rate: x}) for x in (None, -1e-3, float("nan"), "1e-3")},
        "b2=1": ("b2|beta", {rate: 1e-3, **b2}),
        "eps=-1e-8": ("eps", {rate: 1e-3, eps: -1e-8}),
        "weight_decay=-1": ("weight[_ ]decay", {rate: 1e-3, "weight_decay": -1.0}),
        "a gradient of another shape": ("kernel|shape|size", {rate: 1e-3}),
    }
    outcome = {}
    for what, (named, kwargs) in calls.items():
        start, g = np.ones(3, np.float32), np.ones((2, 3) if "shape" in what else 3, np.float32)
        outcome[what] = "silent"
        try:
            opt = make(lib, "adamw", **kwargs)
            if lib == TORCH:
                next(torch_walk(opt, start, [g], "float32"))
            else:
                params, state, step = begin(opt, start)
                step(params, state, jnp.asarray(g))
        except Exception as error:
            outcome[what] = "named" if re.search(named, str(error).lower()) else "unclear"
    return {"outcome": outcome}


def errors_text(cell: Cell) -> str:
    kinds = list(cell["outcome"].values())
    others = (f", {kinds.count(x)} {x}" for x in ("unclear", "silent") if x in kinds)
    return f"{kinds.count('named')} named{''.join(others)}"


def by_default(lib: str) -> Cell:
    """AdaDelta without an argument: the loss of a linear regression after 300 steps, 1 before"""
    x, y = load_diabetes(return_X_y=True)
    x = np.float32(np.c_[(x - x.mean(0)) / x.std(0), np.ones(len(x))])
    y = np.float32((y - y.mean()) / y.std())
    start = np.zeros(x.shape[1], np.float32)
    end = walk(make(lib, "adadelta"), start, lambda p: 2 / len(y) * (x.T @ (x @ p - y)))[-1]
    best = np.linalg.lstsq(x, y)[0]
    return {k: float(((x @ p - y) ** 2).mean()) for k, p in (("loss", end), ("least", best))}


def temporaries(lib: str) -> Cell:
    """arrays of the size of the parameter that a compiled step of Adam, AdaDelta, Lion makes beside
    its results"""
    found: dict[str, Any] = {}
    for name in ("adam", "adadelta", "lion"):
        found[name] = None
        if lib != TORCH:
            params, state, step = begin(make(lib, name, 1e-3), np.ones((512, 512), np.float32))
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params["kernel"])
            used = lowered.compile().memory_analysis().temp_size_in_bytes
            found[name] = round(used / params["kernel"].nbytes, 2)
    return found


def temporaries_text(cell: Cell) -> str:
    return "-" if None in cell.values() else ", ".join(f"{x:g}" for x in cell.values())


def accumulation(lib: str) -> Cell:
    """8 batches, 4 to a step: how often Adam is computed"""
    count: list[Any] = []

    def counted(opt: Any, name: str) -> Any:
        inner = getattr(opt, name)

        def update(*args):
            jax.debug.callback(lambda: count.append(1))
            return inner(*args)

        return update

    grads, start = np.ones((8, 3), np.float32), np.ones(3, np.float32)
    if lib == TORCH:  # its pages: step and zero_grad at every fourth batch
        p = torch.nn.Parameter(torch.tensor(start))
        optimizer = torch.optim.Adam([p])
        optimizer.register_step_post_hook(lambda *_: count.append(1))
        for i, g in enumerate(grads):
            (p * torch.tensor(g)).sum().backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    elif lib == KERAS:
        opt = make(lib, "adam", gradient_accumulation_steps=4)
        opt.update_step = counted(opt, "update_step")
        walk(opt, start, grads)
    else:
        opt = make(lib, "adam", 1e-3)
        opt = optax.GradientTransformation(opt.init, counted(opt, "update"))
        every = optax.MultiSteps(opt, 4).gradient_transformation()
        walk(oa.accumulate(opt, every=4) if lib == HERE else every, start, grads)
    jax.effects_barrier()
    return {"runs": len(count)}


# --- the report -----------------------------------------------------------------------------------


class Row(NamedTuple):
    """What measures a cell, how it reads, and its name in the README where it stands there too."""

    measure: Callable[[str], Cell]
    text: Callable[[Cell], str]
    short: str = ""

    @property
    def name(self) -> str:
        return " ".join((self.measure.__doc__ or "").split())


def percent(cell: Cell) -> str:
    return f"{round(100 * cell['share'], 1):g} %"


ROWS = (
    Row(have, have_text, "of the optimizers here it has"),
    Row(share, percent),
    Row(
        fewest,
        fewest_text,
        "bytes per parameter, state included, in which AdamW trains at a rate of 1e-5",
    ),
    Row(
        shrunk,
        percent,
        "Adam in bfloat16 after gradients became 10 times smaller: steps, of those in float32",
    ),
    Row(
        zero,
        lambda cell: "NaN" if cell["end"] is None else "it stays",
        "Adam on a float16 parameter whose gradient is 0",
    ),
    Row(spike, spike_text),
    Row(one_nan, nan_text),
    Row(errors, errors_text, "eight wrong arguments: an error names"),
    Row(
        by_default,
        lambda cell: f"{cell['loss']:.3g}".replace("e+0", "e"),
        "AdaDelta without an argument, 300 steps: a loss of 1 becomes",
    ),
    Row(temporaries, temporaries_text),
    Row(accumulation, lambda c: f"{c['runs']}"),
)


def measure(rows: Sequence[Row], libraries: Iterable[str]) -> list[dict[str, Any]]:
    """Rows with their cells, library by library, each with its text."""
    pairs = [(row, lib) for row in rows for lib in libraries]
    made = [{"name": row.name, "short": row.short, "cells": {}} for row in rows]
    for row, lib in track(pairs, "cells", console=Console(stderr=True)):
        cell = row.measure(lib)
        made[rows.index(row)]["cells"][lib] = {"text": row.text(cell), **cell}
    return made


def main() -> None:
    versions = {lib: importlib.metadata.version(lib.lower()) for lib in MODULES if lib != HERE}
    report = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": measuring.machine(),
        "versions": {HERE: oa.__version__} | versions,
        "rows": measure(ROWS, MODULES),
    }
    table = Table("", title="In one run, defaults as they come", show_lines=True)
    for lib, version in report["versions"].items():
        table.add_column(f"{lib} {version}")
    for row in report["rows"]:
        table.add_row(row["name"], *(cell["text"] for cell in row["cells"].values()))
    Console(width=None if Console().is_terminal else 132).print(table)
    if missing := {TORCH, KERAS} - set(MODULES):
        print(
            f"Not written: {' and '.join(sorted(missing))} not installed, and the pages show all."
        )
        return
    measuring.write(RESULTS, report)


if __name__ == "__main__":
    main()
