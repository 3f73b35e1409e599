"""Eight CPU devices, so that sharding is tested wherever the tests run."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# Compiling is most of the time of the tests, and none of them measures how fast a program runs.
os.environ["XLA_FLAGS"] += " --xla_llvm_disable_expensive_passes=true"
