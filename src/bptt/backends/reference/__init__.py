"""The plain backend: a Plan's phases as Python over NumPy arrays or torch tensors."""

from bptt.backends.reference.run import execute

__all__ = ["execute"]
