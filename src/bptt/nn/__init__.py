"""Cells as `torch.nn` modules, and `run`, the one entry through which torch sees a Program."""

from bptt.nn.backend import set_backend, use_backend
from bptt.nn.gru import GRU
from bptt.nn.lstm import LSTM
from bptt.nn.recurrent import Recurrent
from bptt.nn.rnn import RNN
from bptt.nn.run import run

__all__ = ["GRU", "LSTM", "RNN", "Recurrent", "run", "set_backend", "use_backend"]
