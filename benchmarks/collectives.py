"""What does each form of training send between devices? Read off the compiled programs.

    python benchmarks/collectives.py                     # eight virtual devices of the CPU
    python benchmarks/collectives.py --platform tpu      # for eight TPU v5e; pip install libtpu
    python benchmarks/collectives.py --platform cuda     # for eight H100; pip install
                                                         #   jax-cuda12-plugin nvidia-cuda-nvcc-cu12

Nothing runs, and none of the devices is needed: XLA compiles for a description of them. Each
platform is a part of results/collectives.json, which docs/make_scaling.py puts into the page.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "collectives.json"
DEVICES = 8
KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")
SMALL = 2**14  # bytes: numbers, and the bias
WIDTHS = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}
# What XLA must know of a GPU to compile for it. No program is timed on it, so none is the fastest.
H100 = """
platform_name: "CUDA"  device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 }  core_count: 132  fpus_per_core: 128  threads_per_warp: 32
  threads_per_block_limit: 1024  threads_per_core_limit: 2048  registers_per_core_limit: 65536
  registers_per_block_limit: 65536  shared_memory_per_block: 49152
  shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024  thread_dim_limit_y: 1024  thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  clock_rate_ghz: 1.98
  device_memory_size: 84942979072  device_address_bits: 64
  name: "NVIDIA H100 80GB HBM3"  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0"  driver_version: "13.0.0"
  runtime_version: "12.8.0"  compile_time_toolkit_version: "12.8.0"  dnn_version: "9.10.0"
}
"""


def prepare(platform: str) -> None:
    """What must be said before JAX is imported."""
    flags = [f"--xla_force_host_platform_device_count={DEVICES}"]
    if platform == "cuda":
        found = importlib.util.find_spec("nvidia.cuda_nvcc")
        where = next(iter(found.submodule_search_locations or ())) if found else ""
        os.environ["PATH"] = f"{where}/bin:{os.environ['PATH']}"
        # Without a GPU there is nothing to try kernels on.
        flags += [f"--xla_gpu_cuda_data_dir={where}", "--xla_gpu_autotune_level=0"]
        flags += ["--xla_gpu_enable_triton_gemm=false", "--xla_gpu_enable_cublaslt=false"]
    if platform == "tpu":
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = " ".join(flags)


def devices(platform: str) -> Any:
    """Eight of them, here or described."""
    import jax  # noqa: PLC0415
    from jax.experimental import topologies  # noqa: PLC0415

    there = jax.devices()  # finds the plugins
    if platform == "tpu":
        there = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
    if platform == "cuda":
        there = topologies.get_topology_desc(
            platform="cuda", topology_name="h100", topology=f"1x1x{DEVICES}", target_config=H100
        ).devices
    return there


def collectives(text: str) -> dict[str, list[int]]:
    """The collectives of a compiled program: of each the bytes of the whole array.

    That is what all devices together make of it, or take. What a compiler cuts into stages keeps
    its channel; arrays of the model have different shapes, so no two are taken for one. A fusion
    named all-reduce-scatter is a TPU's reduce-scatter: of the sum only a part leaves it.
    """
    found: dict[str, list[int]] = {}
    seen, scatters = set(), False
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            scatters = line.startswith("%all-reduce-scatter")
        match = re.search(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(", line)
        if match is None:
            continue
        made, kind = match.groups()
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", made)
        if "-start(" in line and kind != "all-reduce":  # what goes in, then what comes out
            arrays = arrays[len(arrays) // 2 :]
        same = (kind, re.findall(r"channel_id=(\d+)", line)[0], *arrays)
        if same not in seen:
            sizes = [WIDTHS[x] * math.prod(map(int, n.split(",") if n else ())) for x, n in arrays]
            whole = DEVICES if kind == "reduce-scatter" else 1
            name = "reduce-scatter" if scatters else kind
            found.setdefault(name, []).extend(whole * size for size in sizes)
        seen.add(same)
    return found


def programs(mesh: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """The form, the optimizer, the compiled step, and the plan of one device."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415
    import optax  # noqa: PLC0415
    import zero1  # noqa: PLC0415
    from jax.sharding import NamedSharding, PartitionSpec  # noqa: PLC0415

    import optax_adaptive as oa  # noqa: PLC0415

    def shape(*sizes: int, at: Any = None) -> Any:
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=at)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((jnp.tanh(x @ params["up"]) @ params["down"] + params["bias"] - y) ** 2)

    whole, part = (NamedSharding(mesh, PartitionSpec(*x)) for x in ((), ("data",)))
    params = {"up": shape(1024, 2048), "down": shape(2048, 1024), "bias": shape(1024)}
    batch = [shape(4096, 1024)] * 2
    plain = jax.value_and_grad(loss)

    def program(form: str, name: str, tx: Any, params_at: Any, where: Any, gradients: Any) -> Any:
        places = jax.tree.map(lambda _: params_at, params)
        placed = jax.tree.map(lambda p: p.update(sharding=params_at), params)
        state = jax.eval_shape(tx.init, params)
        if where == "cut":
            where = oa.state_shardings(tx, placed, mesh, "data")
        step = zero1.stepper(tx, gradients, places, where)
        state = jax.tree.map(
            lambda x, at: shape(*x.shape, at=at).update(dtype=x.dtype),
            state,
            jax.tree.map(lambda _: whole, state) if where is whole else where,
        )
        spread = [shape(*x.shape, at=part) for x in batch]
        held = oa.plan(tx, placed, shardings=jax.tree.map(lambda x: x.sharding, state)).device
        return form, name, step.lower(placed, state, *spread).compile(), held

    adamw = oa.adamw(1e-3)
    mean = oa.state_shardings(optax.ema(0.9), params, mesh, "data").ema
    yield program("state on every device", "adamw", adamw, whole, whole, plain)
    yield program("ZeRO-1", "adamw", adamw, whole, "cut", plain)
    scattered = zero1.scattered(loss, mesh, mean)
    yield program("ZeRO-1, scattered gradients", "adamw", adamw, whole, "cut", scattered)
    yield program("parameters sharded", "adamw", adamw, part, "cut", plain)

    roles = {"up": "matrix", "down": "matrix", "bias": "adam"}
    for name, tx in {
        "adabound": oa.adabound(),
        "lion": oa.lion(1e-4),
        "with_quantized_state(adamw)": oa.with_quantized_state(adamw),
        "schedule_free_adamw": oa.schedule_free_adamw(1e-3),
        "cautious(adamw)": oa.cautious(adamw),
        "chain(clip_by_global_norm, adamw)": optax.chain(optax.clip_by_global_norm(1.0), adamw),
        "lamb": oa.lamb(1e-3),
        "prodigy": oa.prodigy(),
        "dog": oa.dog(),
        "adafactor": oa.adafactor(1e-3),
        "muon": oa.muon(1e-3, roles=roles),
    }.items():
        yield program("ZeRO-1", name, tx, whole, "cut", plain)


def measure(platform: str) -> dict[str, Any]:
    """The part of the results that this platform has."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from jax.sharding import Mesh  # noqa: PLC0415

    mesh = Mesh(np.array(devices(platform)), ("data",))
    assert mesh.size == DEVICES
    rows = [
        {
            "form": form,
            "optimizer": optimizer,
            "collectives": collectives(compiled.as_text()),
            "held": {"parameters": held.parameters, "state": held.state},
        }
        for form, optimizer, compiled, held in programs(mesh)
    ]
    return {"jax": jax.__version__, "device": str(mesh.devices.flat[0].device_kind), "rows": rows}


def sent(found: dict[str, list[int]]) -> float:
    """Bytes that one device sends, on a ring: twice around for an all-reduce, once for others."""
    once = (DEVICES - 1) / DEVICES
    return sum((2 if kind == "all-reduce" else 1) * once * sum(x) for kind, x in found.items())


def described(found: dict[str, list[int]]) -> str:
    """The collectives of a program, in words."""
    parts, small = [], 0
    for kind in KINDS:
        large = [size for size in found.get(kind, []) if size > SMALL]
        small += len(found.get(kind, [])) - len(large)
        if large:
            parts.append(f"{kind} {sum(large) / 2**20:.1f} MiB")
    if small:
        parts.append(f"{small} small")
    return ", ".join(parts) or "none"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--platform", default="cpu", choices=("cpu", "tpu", "cuda"))
    args = parser.parse_args(argv)
    sys.path.insert(0, str(HERE.parent / "examples"))
    prepare(args.platform)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[args.platform] = measure(args.platform)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    for row in results[args.platform]["rows"]:
        print(f"{row['form']:<30}{row['optimizer']:<36}{described(row['collectives'])}")


if __name__ == "__main__":
    main()
