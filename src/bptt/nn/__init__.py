"""Cells as `torch.nn` modules, and `run`, the one entry through which torch sees a Program."""
