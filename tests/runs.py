"""How the tests run an optimizer on fixed gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from goldens.mapping import deviation
from jax import enable_x64

import optax_adaptive as oa
from optax_adaptive._core import find_states

__all__ = ["SHIPPED", "deviation", "enable_x64", "temporaries", "trajectory"]

# As XLA compiles for users, whatever conftest.py sets.
SHIPPED = {"xla_cpu_use_fusion_emitters": True, "xla_llvm_disable_expensive_passes": False}
AVERAGING = (oa.PolynomialAveragingState, oa.ExponentialAveragingState)


def temporaries(tx, extra=None, **options):
    """What a compiled step keeps beside its results, in arrays of the size of the parameters.

    Parameters and state are donated; `extra` is given to `update`, `options` to the compiler.
    """

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, **extra or {})
        return optax.apply_updates(params, updates), state

    params = {"kernel": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
    state = jax.eval_shape(tx.init, params)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
    memory = lowered.compile(compiler_options={**SHIPPED, **options}).memory_analysis()
    return memory.temp_size_in_bytes / (4 * 512 * 512)


def trajectory(tx, start, gradients, dtype="float32", l2=0.0, **options):
    """The parameters after each step, in float64: updates are summed outside, without rounding.

    Gradients are given in `dtype`, parameters in float32 at least. 64 bits are on only for float64:
    elsewhere scalars must do with float32, as they do for users. Where the state averages the
    parameters, the averages are the path. `options` are for the compiler.
    """
    wide = jnp.promote_types(dtype, "float32")
    path = []
    with enable_x64(dtype == "float64"):
        p = np.asarray(start, "float64")
        update = jax.jit(tx.update, compiler_options=options or None)
        state = tx.init(jnp.asarray(p, wide))
        for g in gradients:
            updates, state = update(jnp.asarray(g + l2 * p, dtype), state, jnp.asarray(p, wide))
            p = p + np.asarray(updates, "float64")
            averages = find_states(state, AVERAGING)
            shown = oa.averaged_params(state, jnp.asarray(p, wide)) if averages else p
            path.append(np.asarray(shown, "float64"))
    return np.array(path)
