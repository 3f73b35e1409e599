"""Eight CPU devices, so that sharding is tested wherever the tests run."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# Compiling is most of the time of the tests, and none of them measures how fast a program runs: so
# it takes a fifth. With AS_SHIPPED=1, and where memory is counted, XLA does what it does for users.
if not os.environ.get("AS_SHIPPED"):
    os.environ["XLA_FLAGS"] += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        " --xla_llvm_disable_expensive_passes=true"
    )
# Both workers compile much of the same; and a second run finds most of it done.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
