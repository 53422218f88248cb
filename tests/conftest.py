"""Eight virtual CPU devices, and no silent broadcasting, for every test."""

import os

# Child processes that the tests start shall not inherit another number of devices.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
