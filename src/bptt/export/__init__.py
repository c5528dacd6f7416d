"""Trained layers for where there is no Python: ONNX graphs, and one file of plain C."""

from bptt.export.graph import onnx
from bptt.export.source import c99

__all__ = ["c99", "onnx"]
