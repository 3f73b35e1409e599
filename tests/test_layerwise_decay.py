"""Layer-wise decay of the learning rate, and which layer a leaf is in."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from runs import SHIPPED, enable_x64

import optax_adaptive as oa


def tree(paths, shape=(2, 3)):
    """A tree of arrays from paths."""
    found = {}
    for k, path in enumerate(paths.split()):
        *parents, name = path.split("/")
        node = found
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = jnp.linspace(0.5, 1.5 + k, 6).reshape(shape)
    return found


PARAMS = tree(
    "embed/embedding layers/0/kernel layers/0/bias layers/1/kernel norm/scale head/kernel"
)
LAYERS = {"embed/*": 0, "layers/0/*": 1, "layers/1/*": 2, "norm/*": 3, "head/*": 3}


def run(tx, params=PARAMS, steps=3):
    update = jax.jit(tx.update, compiler_options=SHIPPED)
    state, found = tx.init(params), []
    for k in range(steps):
        grads = jax.tree.map(lambda p: jnp.sin(9 * p + k).astype(p.dtype), params)  # noqa: B023
        updates, state = update(grads, state, params)
        found.append(updates)
        params = optax.apply_updates(params, updates)
    return found, state


OPTIMIZERS = {
    "adamw": lambda rate: oa.adamw(rate, weight_decay=0.1),
    "sgd": lambda rate: oa.sgd(rate, momentum=0.9),
    "lamb": lambda rate: oa.lamb(rate, weight_decay=0.1),
    "schedule": lambda rate: oa.adam(lambda step: rate / (step + 1)),
    "optax": lambda rate: optax.adamw(rate, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layers_are_groups_with_rates_of_their_own(name):
    """Of `by_path`, and of optax.partition."""
    make = OPTIMIZERS[name]
    ours, _ = run(oa.layerwise_decay(make(0.1), 0.6))
    rates = [0.1 * 0.6**k for k in (3, 2, 1, 0)]
    groups = {pattern: make(rates[i]) for pattern, i in LAYERS.items()}
    chex.assert_trees_all_close(ours, run(oa.by_path(groups))[0], rtol=1e-5, atol=1e-7)
    labels = {"embed": 0, "layers": {"0": 1, "1": 2}, "norm": 3, "head": 3}
    parts = optax.partition({i: make(rate) for i, rate in enumerate(rates)}, labels)
    chex.assert_trees_all_close(ours, run(parts)[0], rtol=1e-5, atol=1e-7)
    plain, _ = run(make(0.1))
    first = plain[0]["layers"]["0"]["kernel"]
    np.testing.assert_allclose(ours[0]["layers"]["0"]["kernel"], 0.36 * first, rtol=1e-6)
    np.testing.assert_array_equal(ours[0]["head"]["kernel"], plain[0]["head"]["kernel"])


def test_without_decay_it_is_the_optimizer():
    tx = oa.adamw(0.1)
    chex.assert_trees_all_equal(run(oa.layerwise_decay(tx, 1)), run(tx))


def test_the_state_is_that_of_the_optimizer():
    tx = oa.adamw(0.1)
    ours = oa.layerwise_decay(tx, 0.5)
    chex.assert_trees_all_equal(ours.init(PARAMS), tx.init(PARAMS))
    assert isinstance(ours, optax.GradientTransformationExtraArgs)
    assert ours.init({}) is not None
    marked = optax.tree.map_params(ours, lambda _: "array", ours.init(PARAMS))
    assert jax.tree.leaves(marked).count("array") == 12


# The last layer, and the layer of every path by its name.
NAMES = {
    "linen": (3, "Embed_0/embedding:0 Block_0/Dense_0/kernel:1 Block_1/LayerNorm_0/scale:2 "
                 "LayerNorm_0/scale:3 head/bias:3"),
    "bert": (13, "bert/embeddings/LayerNorm/scale:0 bert/embeddings/word_embeddings/embedding:0 "
                 + " ".join(f"bert/encoder/layer/{k}/output/kernel:{k + 1}" for k in range(12))
                 + " bert/pooler/dense/kernel:13 classifier/kernel:13"),
    "gpt": (3, "transformer/wte/embedding:0 transformer/wpe/embedding:0 "
               "transformer/h/0/ln_1/scale:1 transformer/h/1/attn/c_attn/kernel:2 "
               "transformer/ln_f/scale:3 lm_head/kernel:3"),
    "vit": (3, "cls:0 embedding/kernel:0 Transformer/posembed_input/pos_embedding:0 "
               "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel:1 "
               "Transformer/encoderblock_1/LayerNorm_0/scale:2 Transformer/encoder_norm/scale:3 "
               "pre_logits/kernel:3 head/kernel:3"),
    "torch": (3, "cls_token:0 pos_embed:0 patch_embed.proj.weight:0 blocks.0.attn.qkv.weight:1 "
                 "blocks.1.mlp.fc1.bias:2 norm.weight:3 head.bias:3"),
    "clip": (3, "stem/conv/kernel:0 ln_pre/scale:0 resblocks/0/ln_1/scale:1 "
                "resblocks/1/ln_1/scale:2 ln_post/scale:3 readout/kernel:3"),
    "llama": (3, "model/embed_tokens/weight:0 model/layers/0/input_layernorm/weight:1 "
                 "model/layers/1/self_attn/q_proj/weight:2 model/norm/weight:3 lm_head/weight:3"),
    "t5": (3, "shared_embedding/weight:0 encoder/block/0/layer/0/SelfAttention/q/kernel:1 "
              "encoder/block/0/layer/1/wi/kernel:1 encoder/block/1/layer/0/v/kernel:2 "
              "encoder/final_layer_norm/weight:3"),
    "from one": (3, "stem/kernel:0 layer1/conv/kernel:1 layer2/conv/kernel:2 output/kernel:3"),
    "gaps": (3, "EncoderLayer_3/w:1 EncoderLayer_10/w:2 head/w:3"),
    "a head of layers": (2, "Embedder/blocks/0/w:1 Embedder/pooler/w:2 head/layers/0/w:2 "
                             "head/layers/1/w:2 Embedder/embed/w:0"),
    "a net called by its heads": (2, "TwoHeads/block_0/w:1 TwoHeads/norm/w:2 TwoHeads/emb/w:0"),
    "a norm before": (2, "blocks/0/w:1 pre_norm/scale:0 norm/scale:2"),
    "a final norm of two": (2, "blocks/0/w:1 norm_final/scale:2 post_ln/scale:2"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_tell_layers(name):
    last, paths = NAMES[name]
    expected = {p: int(i) for p, i in (x.rsplit(":", 1) for x in paths.split())}
    params = tree(" ".join(expected))
    found = oa.layerwise_decay(oa.sgd(1.0), 0.5).report(params)
    assert dict(found) == {path: expected[path] for path in found}
    updates, _ = run(oa.layerwise_decay(oa.sgd(1.0), 0.5), params, 1)
    plain, _ = run(oa.sgd(1.0), params, 1)
    multipliers = jax.tree.leaves(jax.tree.map(lambda u, v: jnp.mean(u / v), updates, plain))
    np.testing.assert_allclose(multipliers, [0.5 ** (last - i) for i in found.values()], rtol=1e-6)


def test_layers_of_modules():
    class Tower(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.embed = nnx.Embed(5, 4, rngs=rngs)
            self.tower = nnx.Sequential(*(nnx.Linear(4, 4, rngs=rngs) for _ in range(2)))
            self.head = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(self.tower(self.embed(x)))

    model = Tower()
    tx = oa.layerwise_decay(oa.sgd(1.0), 0.5)
    found = tx.report(nnx.state(model, nnx.Param))
    assert {path: found[path] for path in found if "kernel" in path or "emb" in path} == {
        "embed/embedding": 0,
        "tower/layers/0/kernel": 1,
        "tower/layers/1/kernel": 2,
        "head/kernel": 3,
    }
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.grad(lambda m: jnp.mean(m(jnp.arange(5)) ** 2))(model)
    before = jnp.copy(model.tower.layers[0].kernel[...])
    optimizer.update(model, grads)
    moved = before - model.tower.layers[0].kernel[...]
    np.testing.assert_allclose(moved, 0.25 * grads["tower"]["layers"][0]["kernel"][...], atol=1e-6)


UNCLEAR = {
    "dense": ("layers/0/w Dense_0/kernel", ["Dense_0/kernel"], "no name says"),
    "two stacks": (
        "encoder/layers/0/w decoder/layers/0/w decoder/layers/1/w embed/w",
        ["decoder/layers/0/w", "decoder/layers/1/w", "encoder/layers/0/w"],
        "in one of 2 stacks of blocks",
    ),
    "stacked": ("blocks/attn/kernel head/w", ["blocks/attn/kernel"], "no number at blocks"),
    "norms": (
        "block_0/w LayerNorm_0/w LayerNorm_1/w",
        ["LayerNorm_0/w", "LayerNorm_1/w"],
        "one of several norms",
    ),
    "heads": (
        "head_a/layers/0/w head_b/layers/0/w",
        ["head_a/layers/0/w", "head_b/layers/0/w"],
        "in one of 2",
    ),
    "a stack of embeddings": (
        "patch_embed/layers/0/w blocks/0/w",
        ["blocks/0/w", "patch_embed/layers/0/w"],
        "in one of 2",
    ),
    "both": ("block_0/w token_classifier/w", ["token_classifier/w"], "token_classifier names both"),
    "module cls": ("block_0/w cls/predictions/w", ["cls/predictions/w"], "no name says"),
    "relative": ("block_0/w rel_pos_bias/w", ["rel_pos_bias/w"], "no name says"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_unclear_layers_are_refused_all_at_once(name):
    """By `init` and `update`; the report shows them."""
    paths, unclear, why = UNCLEAR[name]
    params, tx = tree(paths), oa.layerwise_decay(oa.sgd(0.1), 0.5)
    found = tx.report(params)
    assert [path for path, layer in found.items() if layer is None] == unclear
    assert len(re.findall(r"  \?      \?           ", str(found))) == len(unclear)
    lines = r"\n".join(rf"  {path} +\(2, 3\)  .*{why}.*" for path in unclear)
    match = rf"^layerwise_decay: which layer these leaves are in is not clear:\n{lines}\nSay it, "
    for ask in (tx.init, lambda p: tx.update(p, oa.sgd(0.1).init(p), p)):
        with pytest.raises(ValueError, match=match):
            ask(params)


def test_layers_as_users_say_them():
    params = tree("Conv_0/w Dense_0/w blocks/0/w head/w")

    def layers(said):
        return dict(oa.layerwise_decay(oa.sgd(1.0), 0.5, layers=said).report(params))

    by_names = {"Conv_0/w": 0, "Dense_0/w": 2, "blocks/0/w": 1, "head/w": 2}
    assert layers({"Conv*": 0, re.compile("Dense_0/.*"): 2}) == by_names
    assert layers({"Conv_0/w": 0, "Conv*": 0, "Dense_0/*": 2}) == by_names
    assert layers(lambda path: {"C": 0, "D": 2}.get(path[0])) == by_names
    assert layers({"*": 3}) == dict.fromkeys(by_names, 3)

    def first(said, path):
        tx = oa.layerwise_decay(oa.sgd(1.0), 0.5, layers=said)
        updates, _ = tx.update(params, tx.init(params), params)
        return float(updates[path]["w"][0, 0] / -params[path]["w"][0, 0])

    assert first({"Conv*": 0, "Dense*": 2}, "Conv_0") == 0.25
    assert first({"Conv*": 0, "Dense*": 2}, "head") == 1
    assert first({"Conv*": 0, "Dense*": 5}, "head") == 0.125  # of a last layer of 5
    assert first({"*": 3}, "head") == first({"*": 0}, "head") == 1
    assert first({"head/*": 1, "[!h]*": 0}, "Conv_0") == 0.5
    assert first({"head/*": 4, "Conv*": 0, "Dense*": 3}, "Conv_0") == 0.0625  # as ELECTRA's head


def test_the_report():
    tx = oa.layerwise_decay(oa.adam(0.1), 0.5, layers={"norm/*": 2})
    lines = [
        "  path             layer  multiplier  why",
        "  embed/embedding  0      0.125       named embed",
        "  head/kernel      3      1           named head",
        "  layers/0/bias    1      0.25        block 0 of layers",
        "  layers/0/kernel  1      0.25        block 0 of layers",
        "  layers/1/kernel  2      0.5         block 1 of layers",
        "  norm/scale       2      0.5         layers['norm/*']",
    ]
    assert str(tx.report(PARAMS)) == "\n".join(lines)
    assert str(tx.report(jax.eval_shape(lambda: PARAMS))) == "\n".join(lines)
    default = oa.layerwise_decay(oa.adam(0.1), 0.5).report(PARAMS)
    assert "  norm/scale       3      1           the norm outside" in str(default)


def test_decay_can_be_traced():
    seen = []

    def first(decay):
        tx = oa.layerwise_decay(oa.sgd(1.0), decay)
        seen.append(str(tx.report(PARAMS)))
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]

    swept = jax.vmap(first)(jnp.array([1.0, 0.5]))
    for k, decay in enumerate((1.0, 0.5)):
        plain = first(decay)
        chex.assert_trees_all_close(jax.tree.map(lambda x: x[k], swept), plain)  # noqa: B023
    assert "  embed/embedding  0      decay^3     named embed" in seen[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64", "float64"])
def test_dtypes(dtype):
    """Updates are rounded once, by `transformation`; integers rest."""
    tx = oa.layerwise_decay(oa.sgd(1.0), 0.7)
    with enable_x64(dtype == "float64"):
        params = optax.tree.cast(PARAMS, dtype)
        params |= {"steps": {"head": jnp.arange(3)}}
        updates, _ = tx.update(params, tx.init(params), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        exact = -(0.7**3) * np.asarray(params["embed"]["embedding"], complex)
        ulp = {"bfloat16": 2**-8, "complex64": 1e-6, "float64": 1e-15}[dtype]
        np.testing.assert_allclose(np.asarray(updates["embed"]["embedding"], complex), exact, ulp)
        assert not np.any(updates["steps"]["head"])


@pytest.mark.parametrize(
    "around",
    [
        oa.kahan,
        oa.cautious,
        functools.partial(oa.accumulate, every=1),
        lambda tx: oa.by_path({"*": tx}),
        lambda tx: optax.chain(optax.clip_by_global_norm(0.5), tx),
    ],
)
def test_inside_of_other_wrappers(around):
    """They see smaller rates, and nothing else."""
    params = optax.tree.cast(PARAMS, jnp.bfloat16)
    groups = {pattern: oa.adamw(0.1 * 0.5 ** (3 - i)) for pattern, i in LAYERS.items()}
    ours, _ = run(around(oa.layerwise_decay(oa.adamw(0.1), 0.5)), params)
    theirs, _ = run(around(oa.by_path(groups)), params)
    chex.assert_trees_all_equal_dtypes(ours, theirs)
    chex.assert_trees_all_close(
        *(optax.tree.cast(x, "float32") for x in (ours, theirs)), rtol=1e-2, atol=1e-5
    )


def test_in_a_group_the_last_layer_may_be_elsewhere():
    """The blocks are as far from the head as they are in the whole tree."""
    tx = oa.by_path(
        {"head/*": oa.sgd(2.0), "norm/*": "frozen"}, default=oa.layerwise_decay(oa.sgd(1.0), 0.5)
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    kernels = updates["layers"]["1"]["kernel"], PARAMS["layers"]["1"]["kernel"]
    np.testing.assert_allclose(kernels[0], -0.5 * kernels[1])
    np.testing.assert_allclose(updates["head"]["kernel"], -2 * PARAMS["head"]["kernel"])


def test_what_the_optimizer_needs_is_passed_on():
    tx = oa.layerwise_decay(oa.momo(1.0), 0.5)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0)
    assert np.all(updates["head"]["kernel"] < 0)
    with pytest.raises(ValueError, match=r"^momo\.update needs value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((oa.adam, 0.5), "tx must be an optax.Grad.*, got <f"),
        *(
            ((oa.adam(0.1), bad), r"decay must be a number in \(0, 1\], got ")
            for bad in (0, 1.1, -0.5, float("nan"), "1", None, True)
        ),
        ((oa.adam(0.1), 0.5, [0]), r"layers must be None, a dict .*, got \[0\]"),
        ((oa.adam(0.1), 0.5, {3: 0}), "the keys of layers must be strings, .*, got 3"),
        *(
            ((oa.adam(0.1), 0.5, {"*": bad}), r"layers\['\*'\] must be a whole number >= 0, got ")
            for bad in (-1, 0.5, "0", True, None)
        ),
        (
            (oa.adam(0.1), 0.5, lambda path: -1),
            r"layers\('embed/embedding'\) must be a whole number >= 0, got -1",
        ),
        (
            (oa.adam(0.1), 0.5, {"embed/*": 0, "*/embedding": 1}),
            r"layers contradict each other at embed/embedding: 'embed/\*': 0, '\*/embedding': 1",
        ),
        ((oa.adam(0.1), 0.5, {"Dense*": 0}), r"no leaf matches layers\['Dense\*'\]; there are"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=f"^layerwise_decay: {match}"):
        oa.layerwise_decay(*arguments).init(PARAMS)
