"""Masks by name and shape: what weight decay spares, and what patterns of paths say."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._paths import matching, names
from optax_adaptive._roles import evidence, part, words_of


def decay_mask(params: optax.Params) -> Any:
    """Where weight decay belongs: a tree of booleans, for `adamw(1e-3, mask=decay_mask)`.

    False for biases, for the gains of norms, and for all that has less than two axes. Names tell,
    so that it is right where layers are stacked in one array, too, as `nn.scan` does, and a bias
    has two axes: "bias" in the last key of a path, or a norm's name ("LayerNorm_0", "ln_f",
    "q_norm") or a gain's ("scale", "gamma") in one of the last two. Embeddings, tokens and
    positions decay if they have two axes. `path_mask` says otherwise.

    Args:
        params: The parameters, or their shapes (`jax.ShapeDtypeStruct`).
    """

    def decays(path: str, x: Any) -> bool:
        # Whose it is, and not where: a block may be called prenorm.
        keys = path.split("/")[-2:]
        if part("/".join(keys), jnp.shape(x))[0] in ("bias", "vector", "norm"):
            return False
        return not any("norm" in evidence(words_of(key)) for key in keys)

    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten(list(map(decays, names(params), leaves)))


def path_mask(
    *patterns: str | re.Pattern[str], invert: bool = False
) -> Callable[[optax.Params], Any]:
    """A mask by paths: a function from parameters to booleans, True where a pattern matches.

    For `adamw(1e-3, mask=path_mask("*/bias", "*/embedding", invert=True))`, and wherever optax
    takes a mask.

    Args:
        patterns: Of paths, as "params/Dense_0/kernel": strings, shell-style, in which "*" matches
            slashes, too; or compiled regular expressions of the whole path.
        invert: Whether it is False where a pattern matches, and True elsewhere.

    Raises:
        ValueError: If there is no pattern; where the mask is made, if one matches no leaf.
    """
    who = _check.caller()
    if not patterns:
        raise ValueError(f'{who}: at least one pattern is needed, as "*/bias".')
    _check.patterns("patterns", patterns)
    _check.flag(invert=invert)

    def mask(params: optax.Params) -> Any:
        paths = names(params)
        found = matching(who, "patterns", dict.fromkeys(patterns), paths)
        return jax.tree.structure(params).unflatten([bool(found[p]) != invert for p in paths])

    return mask
