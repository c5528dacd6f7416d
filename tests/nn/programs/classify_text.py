"""Text classification with ragged batches: is one word more frequent in a text than another?"""

import torch
from torch import nn
from torch.nn import LSTM
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

WORDS, LONGEST, BATCH = 12, 9, 8


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 5, padding_idx=0)
        self.lstm = LSTM(5, 6, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.classes = nn.Linear(4 * 6, 2)

    def forward(self, texts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(
            self.embedding(texts), lengths, batch_first=True, enforce_sorted=False
        )
        output, (h, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True)
        mean = padded.sum(1) / lengths[:, None]
        return self.classes(torch.cat([mean, h[-2], h[-1]], 1))


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Texts padded with zeros, their lengths, and whether they have more of 1 than of 2."""
    lengths = torch.randint(2, LONGEST + 1, (BATCH,))
    texts = torch.randint(1, WORDS, (BATCH, LONGEST))
    texts *= torch.arange(LONGEST) < lengths[:, None]
    return texts, lengths, ((texts == 1).sum(1) > (texts == 2).sum(1)).long()


torch.manual_seed(0)
model = Classifier().double()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
losses: list[float] = []
for _ in range(8):
    texts, lengths, labels = batch()
    loss = nn.functional.cross_entropy(model(texts, lengths), labels)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())

model.eval()
with torch.no_grad():
    texts, lengths, labels = batch()
    losses.append(nn.functional.cross_entropy(model(texts, lengths), labels).item())
