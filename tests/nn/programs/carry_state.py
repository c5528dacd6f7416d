"""A time series in pieces, the state carried from one to the next, which is cut from its past."""

import torch
from torch import nn
from torch.nn import LSTM

STEPS, PIECE, SERIES = 60, 10, 4

torch.manual_seed(0)
time = torch.arange(STEPS + 1, dtype=torch.float64)[:, None] / 5
shift = torch.rand(SERIES, dtype=torch.float64)
wave = torch.sin(time + shift) + torch.sin(3 * time) / 2
wave += 0.05 * torch.randn(STEPS + 1, SERIES, dtype=torch.float64)

lstm, readout = LSTM(1, 8, proj_size=3).double(), nn.Linear(3, 1).double()
parameters = [*lstm.parameters(), *readout.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
losses: list[float] = []
for _ in range(2):
    states = None
    for begin in range(0, STEPS, PIECE):
        piece = wave[begin : begin + PIECE + 1, :, None]
        output, states = lstm(piece[:-1], states)
        states = tuple(s.detach() for s in states)
        loss = nn.functional.mse_loss(readout(output), piece[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    schedule.step()

# and on from there, on what it says itself
with torch.no_grad():
    x = wave[-1:, :, None]
    for _ in range(5):
        output, states = lstm(x, states)
        x = readout(output)
        losses.append(x.square().mean().item())
