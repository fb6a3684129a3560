"""STAG-JAX: spatio-temporal graphs of facial action units for micro-expression recognition."""
