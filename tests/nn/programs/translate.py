"""Sequence to sequence with attention: write a sentence backwards, word by word."""

import torch
from torch import nn
from torch.nn import LSTM

WORDS, LENGTH, BATCH, WIDTH = 8, 5, 6, 7


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.lstm = LSTM(WIDTH, WIDTH, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, source: torch.Tensor):
        memory, states = self.lstm(self.embedding(source))
        h, c = (self.bridge(torch.cat([s[0], s[1]], 1)).tanh()[None] for s in states)
        return memory, (h, c)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.attention = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.lstm = LSTM(3 * WIDTH, WIDTH, batch_first=True)
        self.words = nn.Linear(3 * WIDTH, WORDS)

    def forward(self, word: torch.Tensor, context: torch.Tensor, states, memory: torch.Tensor):
        """One step: scores of the next word, what was attended to, the states."""
        x = torch.cat([self.embedding(word)[:, None], context], 2)
        output, states = self.lstm(x, states)
        weights = (self.attention(output) @ memory.mT).softmax(2)
        context = weights @ memory
        return self.words(torch.cat([output, context], 2))[:, 0], context, states


def loss_of(source: torch.Tensor, taught: bool) -> torch.Tensor:
    """Of the reversed sentence, after its right words or after those that were chosen."""
    memory, states = encoder(source)
    context, word = memory.new_zeros(BATCH, 1, 2 * WIDTH), torch.zeros_like(source[:, 0])
    losses = []
    for target in source.flip(1).unbind(1):
        scores, context, states = decoder(word, context, states, memory)
        losses.append(nn.functional.cross_entropy(scores, target))
        word = target if taught else scores.argmax(1)
    return torch.stack(losses).mean()


torch.manual_seed(0)
encoder, decoder = Encoder().double(), Decoder().double()
optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=0.01)
losses: list[float] = []
for step in range(6):
    loss = loss_of(torch.randint(1, WORDS, (BATCH, LENGTH)), taught=step % 2 == 0)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
