"""Layer-wise decay: the nearer a layer is to the input, the smaller its learning rate.

Clark, Luong, Le and Manning, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
Generators", ICLR 2020, appendix B. https://arxiv.org/abs/2003.10555
Bao, Dong, Piao and Wei, "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022.
https://arxiv.org/abs/2106.08254
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import Reporting, map_leaves, reporting, transformation
from optax_adaptive._paths import Report, matches, matching, named_shapes, shown, table
from optax_adaptive._roles import evidence, names_block, words_of


class Place(NamedTuple):
    """Where a leaf is in the depth of a model."""

    layer: int | None  # None where it is not clear
    why: str


def layerwise_decay(tx: optax.GradientTransformation, decay: Any, layers: Any = None) -> Reporting:
    """The updates of `tx`, smaller the nearer a layer is to the input: for fine-tuning.

    With u the update of tx and i the layer of a leaf, of layers 0, ..., last::

        update = decay^(last - i) u

    Around an optimizer that scales rate and decay alike: its learning rate, and its decoupled
    weight decay with it. Norms, trust ratios and estimates are those of `tx` around all layers.

    By default names tell the layer. With n blocks, last = n + 1::

        0          embeddings: embed, token, position, patch, stem, cls; a norm called pre
        1 ... n    blocks, in the order of the numbers in their names: "layers/3", "Block_3",
                   "encoder/layer/3", "h/3", "blocks.3"; in blocks of blocks the outermost counts
        n + 1      what comes after: head, logits, classifier, output, pooler, the one norm outside

    A leaf whose layer is not clear is an error that lists all of them, and so is a model with two
    stacks of blocks; `layers` tells then. `report(params)` is a mapping from paths to layers, None
    where it is not clear, whose `str` is a table with the multipliers, and why.

    Args:
        tx: Any optimizer. What counts on its updates as they are goes around all, not within:
            `kahan` and its like, averages, `schedule_free`.
        decay: What a layer has of the rate of the next, in (0, 1]. 0.65 to 0.95 are usual.
        layers: None; a dict from patterns of paths, as in `by_path`, to layers; or a function of a
            path that returns one. A layer is a whole number >= 0. Where no pattern matches, or the
            function returns None, names tell. `last` is the largest of all, and n + 1 at least
            where names tell one.

    Returns:
        A transformation with `report(params)`. The state is that of `tx`.

    Raises:
        ValueError: If an argument is outside its domain; in `init`, if a layer is not clear, two
            patterns contradict each other, or one matches no leaf.

    Departures: as the code of BEiT. timm's `param_groups_layer_decay` has the same multipliers, but
    it puts the final norm into the last block, what it does not know into the last layer, and
    numbers blocks of blocks one by one; that vectors do not decay there is `mask=decay_mask` here.
    In the code of ELECTRA the head is two layers above the last block: `{"head/*": n + 2}`.
    """
    tx = _check.wrapped(tx)
    _check.positive_share(decay=decay)
    who = _check.caller()
    if isinstance(layers, Mapping):
        _check.patterns("the keys of layers", layers)
        for pattern, layer in layers.items():
            _whole(who, f"layers[{pattern!r}]", layer)
    elif layers is not None and not callable(layers):
        raise ValueError(
            f"{who}: layers must be None, a dict from patterns of paths to whole numbers, or a "
            f"function of a path, got {layers!r}."
        )

    def places(tree: Any, checked: bool = True) -> tuple[list[Place], int]:
        paths = [path for path, _ in named_shapes(tree)]
        if isinstance(layers, Mapping) and checked:
            matching(who, "layers", layers, paths)
        said = [_said(who, path, layers) for path in paths]
        told, last = _told([path for path, place in zip(paths, said, strict=True) if not place])
        told = iter(told)
        found = [place or next(told) for place in said]
        return found, max([last, *(place.layer or 0 for place in found)])

    def heights(tree: Any, checked: bool = False) -> Any:
        found, last = places(tree, checked)
        unclear = [
            (shown(path), str(shape), place.why)
            for (path, shape), place in zip(named_shapes(tree), found, strict=True)
            if place.layer is None
        ]
        if unclear:
            raise ValueError(
                f"{who}: which layer these leaves are in is not clear:\n{table(unclear)}\n"
                f'Say it, by path or pattern: layers={{"...": 0}} for the first, {last} for the '
                "last of those that are clear."
            )
        return jax.tree.structure(tree).unflatten([last - (place.layer or 0) for place in found])

    def init(params):
        heights(params, checked=True)
        return tx.init(params)

    def update(grads, state, *, params=None, **extra):
        shares = jax.tree.map(lambda height: decay**height, heights(grads))
        updates, state = tx.update(grads, state, params, **extra)

        def leaf(u, share):
            return jnp.asarray(share, u.dtype) * u

        return map_leaves(leaf, updates, other=(shares,), inline=True), state

    def report(params: optax.Params) -> Report:
        """The layer of every leaf by its path, None where it is not clear; `str` is a table."""
        found, last = places(params)
        paths = [path for path, _ in named_shapes(params)]
        traced = isinstance(decay, jax.core.Tracer)

        def cells(path: str, layer: int | None, why: str) -> tuple[str, ...]:
            if layer is None:
                return shown(path), "?", "?", why
            share = f"decay^{last - layer}" if traced else f"{float(decay) ** (last - layer):.4g}"
            return shown(path), str(layer), share, why

        rows = [cells(path, *place) for path, place in zip(paths, found, strict=True)]
        decided = {path: place.layer for path, place in zip(paths, found, strict=True)}
        return Report(decided, [("path", "layer", "multiplier", "why"), *rows])

    return reporting(transformation(init, update), report)


def _whole(who: str, where: str, layer: Any) -> None:
    if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
        raise ValueError(f"{who}: {where} must be a whole number >= 0, got {layer!r}.")


def _said(who: str, path: str, layers: Any) -> Place | None:
    """What the user says of a leaf, None for nothing."""
    if isinstance(layers, Mapping):
        found = [p for p in layers if matches(p, path)]
        if len({layers[p] for p in found}) > 1:
            told = ", ".join(f"{p!r}: {layers[p]}" for p in found)
            raise ValueError(f"{who}: layers contradict each other at {shown(path)}: {told}.")
        return Place(layers[found[0]], f"layers[{found[0]!r}]") if found else None
    layer = None if layers is None else layers(path)
    if layer is None:
        return None
    _whole(who, f"layers({path!r})", layer)
    return Place(layer, "layers(path)")


class Block(NamedTuple):
    """A numbered block."""

    stack: tuple[str, ...]  # the keys to all blocks of its kind
    number: int


def _told(paths: list[str]) -> tuple[list[Place], int]:
    """What names say of leaves, and the last layer."""
    split = [tuple(re.split(r"[/.]", path)) for path in paths]
    blocks = list(map(_block, split))
    stacks = {block.stack for block in blocks if block}
    # One in a head is not the trunk, where there is another one.
    trunks = {s for s in stacks if "last" not in map(_end, s[:-1])} or stacks
    trunk: tuple[str, ...] = next(iter(trunks)) if len(trunks) == 1 else ()
    numbers = sorted({block.number for block in blocks if block and block.stack == trunk})
    last = len(numbers) + 1 if paths else 0
    outside = {
        keys: _named(keys, trunk)
        for keys, block in zip(split, blocks, strict=True)
        if block is None or block.stack != trunk
    }
    norms = {norm for _, _, norm in outside.values() if norm}

    def place(keys: tuple[str, ...], block: Block | None) -> Place:
        if block and keys not in outside:
            why = f"block {block.number} of {'/'.join(trunk)}"
            return Place(1 + numbers.index(block.number), why)
        end, why, norm = outside[keys]
        if block and (end != "last" or not trunk):
            return Place(None, f"in one of {len(trunks)} stacks of blocks")
        if norm and len(norms) == 1:
            return Place(last, "the norm outside")
        ends = {"first": 0, "last": last}
        return Place(ends.get(end or ""), "one of several norms" if norm else why)

    return list(map(place, split, blocks)), last


def _block(keys: tuple[str, ...]) -> Block | None:
    """The outermost numbered block on a path."""
    for i, (key, follows) in enumerate(zip(keys, (*keys[1:], ""), strict=True)):
        stem = key.rstrip("0123456789")
        digits = key[len(stem) :] or follows
        if names_block(words_of(key)) and digits.isdecimal():
            return Block((*keys[:i], stem.rstrip("_-")), int(digits))
    return None


def _named(
    keys: tuple[str, ...], trunk: tuple[str, ...]
) -> tuple[str | None, str, tuple[str, ...] | None]:
    """Which end of the model names say, why, and the norm that leaves it open.

    What contains the blocks says nothing: a whole model may be called SentenceEmbedder.
    """
    why = "no name says"
    for i, key in enumerate(keys):
        if keys[: i + 1] == trunk[: i + 1]:
            continue
        end = _end(key, i == len(keys) - 1)
        if end:
            known = end in ("first", "last")
            return (end, f"named {key}", None) if known else (None, f"{key} names {end}", None)
        if "norm" in evidence(words_of(key)):
            return None, why, keys[: i + 1]
        if names_block(words_of(key)):
            why = f"no number at {key}"
    return None, why, None


def _end(key: str, is_leaf: bool = False) -> str | None:
    """The end of a model, "first" or "last", that a key names; "both ends" is none."""
    words = words_of(key)
    says, named = evidence(words), set(words)
    first = "embedding" in says and not named & {"rel", "relative"}
    first = first or named & {"stem", "patch"} or (is_leaf and words == ["cls"])
    last = "head" in says or "pooler" in named
    if "norm" in says:
        first, last = first or "pre" in named, last or named & {"f", "final", "post", "last"}
    return "both ends" if first and last else "first" if first else "last" if last else None
