"""Who plays which role in a model, for Muon and Adam-mini."""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import optax_adaptive as oa

NAMED = {  # path: (shape, role by Muon, role by Adam-mini), None where it must be said
    "Embed_0/embedding": ((9, 4), "adam", "rows"),
    "wte/embedding": ((9, 4), "adam", "rows"),
    "pos_embedding": ((1, 9, 4), "adam", "tensor"),
    "LayerNorm_0/scale": ((4,), "adam", "tensor"),
    "block_0/attn/q_norm/scale": ((2, 4), "adam", "tensor"),
    "block_0/attn/query/bias": ((2, 4), "adam", "adam"),
    "block_0/attn/query/kernel": ((4, 4), "matrix", None),
    "block_1/attn/query/kernel": ((4, 2, 2), None, "heads"),
    "block_1/attn/value/kernel": ((4, 2, 2), None, "neurons:2"),
    "block_1/attn/out/kernel": ((2, 2, 4), None, "neurons"),
    "h/0/attn/c_attn/kernel": ((4, 12), "matrix", None),
    "h/0/attn/c_proj/kernel": ((4, 4), "matrix", "neurons"),
    "h/0/mlp/c_fc/kernel": ((4, 16), "matrix", "neurons"),
    "layers/0/self_attn/o_proj/weight": ((4, 4), "transposed", "rows"),
    "layers/0/mlp/gate_proj/weight": ((16, 4), "transposed", "rows"),
    "layers/0/mlp/fc1/kernel": ((4, 16), "matrix", "neurons"),
    "encoder/layer/0/attention/output/dense/kernel": ((4, 4), "matrix", "neurons"),
    "encoder/layer/0/output/dense/kernel": ((4, 4), None, "neurons"),
    "MultiHeadAttention_0/value_proj/kernel": ((4, 4), "matrix", "neurons"),
    "hidden_1/kernel": ((4, 4), "matrix", "neurons"),
    "Dense_2/kernel": ((4, 3), None, "neurons"),
    "mlp/layers/2/weight": ((3, 4), None, "rows"),
    "fc2/kernel": ((4, 3), None, "neurons"),
    "critic/value/kernel": ((4, 1), None, "tensor"),
    "AttentionModel_0/out/kernel": ((4, 3), None, "tensor"),
    "lm_head/kernel": ((4, 9), "adam", "neurons"),
    "output/kernel": ((4, 9), "adam", "neurons"),
    "unembed/weight": ((9, 4), "adam", "rows"),
    "hidden_to_output/kernel": ((4, 9), None, "tensor"),
    "Conv_0/kernel": ((3, 3, 4, 8), None, "tensor"),
}


def test_adam_mini_takes_one_number_for_a_block():
    """The first step of a block has the shape of its gradient; Adam's is its sign."""
    g = jax.random.normal(jax.random.key(0), (4, 6))
    for role, axes, shape in [
        ("tensor", (0, 1), (1, 1)),
        ("rows", 1, (4, 1)),
        ("neurons", 0, (1, 6)),
        ("rows:2", (), (4, 6)),
    ]:
        tx = oa.scale_by_adam_mini(roles={"*": role})
        step, state = tx.update(g, tx.init(g))
        assert state.nu.shape == shape
        expected = g / jnp.sqrt(jnp.mean(g * g, axes, keepdims=True))
        chex.assert_trees_all_close(step, expected, rtol=1e-5)
    for role, view, axes in [
        ("heads:3", (4, 3, 2), (0, 2)),
        ("row_heads:2", (2, 2, 6), (1, 2)),
    ]:
        tx = oa.scale_by_adam_mini(roles={"*": role})
        step, _ = tx.update(g, tx.init(g))
        blocks = g.reshape(view)
        expected = blocks / jnp.sqrt(jnp.mean(blocks**2, axes, keepdims=True))
        chex.assert_trees_all_close(step, expected.reshape(4, 6), rtol=1e-5)


def shapes(names):
    """A tree of shapes from paths."""
    tree = {}
    for path, shape in names.items():
        *parents, name = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return tree


def test_names_tell_roles():
    params = shapes({path: shape for path, (shape, *_) in NAMED.items()})
    for report, which in ((oa.muon_roles, 1), (oa.adam_mini_roles, 2)):
        assert dict(report(params)) == {path: row[which] for path, row in NAMED.items()}


def test_unclear_roles_are_refused_all_at_once():
    params = shapes({"Dense_0/kernel": (4, 3), "Conv_0/kernel": (3, 3, 1, 4), "Dense_0/bias": (3,)})
    tx = oa.muon(0.1)
    match = (
        r"(?s)^muon: which role these leaves play is not clear:\n"
        r"  Conv_0/kernel   \(3, 3, 1, 4\) .*\n  Dense_0/kernel  \(4, 3\) .*\n"
        r'.*roles=\{"Conv_0/kernel": \.\.\., "Dense_0/kernel": \.\.\.\}\nwith\n'
        r'  "adam"  .*  "matrix"  .*'
    )
    with pytest.raises(ValueError, match=match):
        tx.init(params)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), params)
    said = oa.muon(0.1, roles={"Conv*": "conv", "Dense_0/kernel": "adam"})
    with pytest.raises(ValueError, match=r"(?s)^muon: which role these leaves"):
        tx.update(zeros, said.init(params), zeros)
    with pytest.raises(ValueError, match=r"(?s)^adam_mini: which role this leaf plays .*heads"):
        oa.adam_mini(0.1).init(shapes({"attn/query/kernel": (4, 4)}))


def test_roles_as_users_say_them():
    params = shapes({"a/kernel": (4, 3), "b/kernel": (3, 2), "b/bias": (2,)})
    by_function = oa.muon_roles(params, lambda path, _: {"a/kernel": "matrix"}.get(path, "adam"))
    by_pattern = oa.muon_roles(params, {"a/*": "matrix", "b/kernel": "adam"})
    assert dict(by_function) == dict(by_pattern)
    assert dict(by_pattern) == {"a/kernel": "matrix", "b/kernel": "adam", "b/bias": "adam"}
    assert str(by_pattern).splitlines() == [
        "  path      shape   role    why",
        "  a/kernel  (4, 3)  matrix  roles['a/*']",
        "  b/bias    (2,)    adam    named bias",
        "  b/kernel  (3, 2)  adam    roles['b/kernel']",
    ]

    def refused(roles, match):
        with pytest.raises(ValueError, match=rf"(?s)^muon: {match}"):
            oa.muon(0.1, roles=roles).init(params)

    refused({"*/kernel": "matrix", "b/*": "adam"}, r"roles contradict each other at\n  b/kernel ")
    refused(
        {"*/kernel": "matrix", "c/*": "adam"}, r"no leaf matches roles\['c/\*'\]; there are.*b/"
    )
    refused({"*": "matrix"}, r'a leaf of role "matrix" is \(in, out\); b/bias has shape \(2,\) ')
    refused({"*": "matrx"}, r"roles\['\*'\] must be one of.*got 'matrx'")
    refused({"*": "stack:2"}, r"roles\['\*'\] must be one of.*got 'stack:2'")
    refused(lambda path, shape: 3, r"roles\('a/kernel', \(4, 3\)\) must be one of.*got 3")


def test_paths_of_all_kinds_of_trees():
    class Layer(NamedTuple):
        query: jax.Array
        value: jax.Array

    kernel = jnp.ones((2, 2))
    params = {"attention": [Layer(kernel, kernel)], "c": {"kernel": 1j * kernel[0]}}
    assert list(oa.muon_roles(params)) == ["attention/0/query", "attention/0/value", "c/kernel"]
    assert oa.muon_roles(params)["c/kernel"] is None  # two axes, as it is seen
    assert list(oa.muon_roles(kernel)) == [""]

    model = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0), decode=False)
    state = nnx.state({"attn": model}, nnx.Param)
    assert oa.adam_mini_roles(state)["attn/value/kernel"] == "neurons:2"
    assert oa.adam_mini_roles(state)["attn/key/kernel"] == "heads"
    boxed = {"Dense_0": {"kernel": nn.Partitioned(kernel, ("x", None))}}
    assert oa.adam_mini_roles(boxed)["Dense_0/kernel"] == "neurons"
