"""optax mixes integers and floats on purpose, so its callers run under the standard promotion rules."""

import jax
import pytest


@pytest.fixture(autouse=True)
def standard_promotion():
    """Undoes the strictness of the suite for the tests of this folder."""
    with jax.numpy_dtype_promotion("standard"):
        yield
