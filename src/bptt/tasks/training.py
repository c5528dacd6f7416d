"""Training a language model by truncated backpropagation; a run can stop and go on anywhere."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bptt.cell import Cell
from bptt.errors import CellError, UserError
from bptt.tasks import checkpoint as files
from bptt.tasks.checkpoint import CellText, Checkpoint, Engine, Point, State, TextId
from bptt.tasks.config import Budget, Config
from bptt.tasks.model import CharModel, States, judge
from bptt.tasks.streams import Streams
from bptt.tasks.text import Text, Vocabulary, split

VALIDATIONS = 20
"""About how often a run validates and saves."""
MOST_STEPS_BETWEEN = 250
MOST_SECONDS_BETWEEN = 20.0
_SMOOTH = 50  # steps that a shown loss or speed is the mean of, about


@dataclass(frozen=True)
class Progress:
    """Where a run stands after an update.

    `loss` is in nats per character, smoothed like `speed`, in characters per second; `left` in
    seconds, as far as can be told. `point` is the validation that followed the update, if one
    did; the run was saved then.
    """

    step: int
    loss: float
    speed: float
    left: float
    point: Point | None


class Trainer:
    """One run: a model, its optimizer, where it reads, and its curve so far.

    torch's global generator, which draws the first weights and dropout, is seeded here and saved
    with the run. `make` gives the model its form: what is trained otherwise is trained alike.
    """

    def __init__(
        self,
        text: Text,
        cell: str | Cell,
        config: Config,
        budget: Budget,
        make: Callable[[str | Cell, int, Config], CharModel] = CharModel,
    ) -> None:
        torch.manual_seed(config.seed)
        vocabulary = Vocabulary.of(text.content)
        learned, held_back = split(vocabulary.encode(text.content))
        if len(learned) <= config.window:
            raise UserError(f"{text.name} is too short for windows of {config.window} characters")
        self.budget = budget
        self.config = config
        self.vocabulary = vocabulary
        self.text = text
        self.held_back = torch.from_numpy(held_back)
        self.model = make(cell, len(vocabulary), config)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
        codes = torch.from_numpy(learned)
        self.streams = Streams(codes, config.batch, config.window, config.restart, config.seed)
        self.states: States | None = None
        self.step = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.points: list[Point] = []

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self.budget.done(self.step, self.seconds) >= 1.0

    @property
    def engine(self) -> Engine:
        """What computes this run."""
        return Engine(self.model.recurrent.backend, torch.get_num_threads(), torch.__version__)

    def run(self, folder: Path) -> Iterator[Progress]:
        """Train until the budget is spent, yielding after each update; one may stop at any of them.

        Saves to `folder` at the beginning; validates and saves about twenty times from there to
        the end. Raises UserError where the loss is no longer a number, and saves nothing then.
        """
        if not self.step:
            self.save(folder)  # the folder is a run from here on, whatever happens
        begun = time.monotonic() - self.seconds
        loss, pace = self.losses[-1] if self.losses else 0.0, 0.0
        updates = itertools.count(1)
        while not self.finished:
            before = time.monotonic()
            latest = self.update()
            now = time.monotonic()
            self.seconds = now - begun
            loss += (latest - loss) / min(self.step, _SMOOTH)
            pace += (now - before - pace) / min(next(updates), _SMOOTH)
            point = None
            if self._due():
                point = self.validate()
                self.seconds = time.monotonic() - begun
                self.save(folder)
            speed = self.config.batch * self.config.window / max(pace, 1e-9)
            yield Progress(self.step, loss, speed, self._left(pace), point)

    def update(self) -> float:
        """One window, one update. Gives the window's loss in nats per character."""
        rate = self.config.rate(self.budget.done(self.step, self.seconds))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        read, expected, fresh = self.streams.next()
        states = None if self.states is None else self.model.renew(self.states, fresh)
        logits, states = self.model(read, states)
        loss = cross_entropy(logits.flatten(0, 1), expected.flatten())
        latest = loss.item()
        if not math.isfinite(latest):
            raise UserError(
                f"the loss is no longer a number at step {self.step + 1}",
                help="the cell's values run away: try a smaller --hidden or another cell",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if torch.isfinite(norm):  # a gradient that overflowed says nothing about a direction
            self.optimizer.step()
        self.states = tuple(state.detach().clone() for state in states)
        self.step += 1
        self.losses.append(latest)
        return latest

    def validate(self, whole: bool = False) -> Point:
        """Judge the model on the first part of the text held back (the curve) or on all of it."""
        codes = self.held_back if whole else self.held_back[: self.config.validation + 1]
        point = Point(self.step, self.seconds, judge(self.model, codes))
        if not whole:
            self.points.append(point)
        return point

    def save(self, folder: Path) -> None:
        """Write the checkpoint: what `resume` needs to go on with the same curve, bit for bit."""
        files.write(folder, Checkpoint(self._state(), self._tensors()))

    @classmethod
    def resume(cls, folder: Path, saved: Checkpoint, text: Text, budget: Budget) -> Trainer:
        """The run as it was saved, on with a `budget` that may be another one.

        Raises UserError where the text is another one or the checkpoint does not fit together.
        """
        state = saved.state
        if text.sha256 != state.text.sha256:
            help = "`bptt train FILE --resume RUN` says where the same text is now"
            raise UserError(f"{text.name} is not the text that {folder} was trained on", help=help)
        _check_sizes(folder, saved)
        trainer = cls(text, _cell_of(folder, state), state.config, budget)
        try:
            trainer._load(saved)
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise files.damaged(folder, str(error)) from None
        return trainer

    def _due(self) -> bool:
        if self.finished:
            return True
        if self.budget.steps:
            every = min(MOST_STEPS_BETWEEN, max(1, self.budget.steps // VALIDATIONS))
            return self.step % every == 0
        last = self.points[-1].seconds if self.points else 0.0
        between = min(MOST_SECONDS_BETWEEN, 60.0 * self.budget.minutes / VALIDATIONS)
        return self.seconds - last >= between

    def _left(self, pace: float) -> float:
        if self.budget.steps:
            return (self.budget.steps - self.step) * pace
        return max(0.0, 60.0 * self.budget.minutes - self.seconds)

    def _state(self) -> State:
        cell = self.model.recurrent.cell
        return State(
            cell=CellText(cell.name, cell.text if cell.text.endswith("\n") else cell.text + "\n"),
            config=self.config,
            budget=self.budget,
            text=TextId(self.text.kind, self.text.path, self.text.sha256),
            engine=self.engine,
            vocabulary=self.vocabulary.symbols,
            step=self.step,
            seconds=self.seconds,
            points=list(self.points),
        )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v.detach() for k, v in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        for index, state in enumerate(self.states or ()):
            tensors[f"stream.state.{index}"] = state
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["rng.torch"] = torch.get_rng_state()
        return tensors | self.streams.tensors()

    def _load(self, saved: Checkpoint) -> None:
        tensors, state = saved.tensors, saved.state
        if state.vocabulary != self.vocabulary.symbols:
            raise ValueError("the vocabulary is not that of the text")
        _load_model(self.model, tensors)
        # A parameter that never had a gradient has no moments.
        moments = {
            index: self._moments(name, tensors)
            for index, (name, _) in enumerate(self.model.named_parameters())
            if f"optimizer.step.{name}" in tensors
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if state.step:
            initial = self.model.recurrent.initial_states(self.config.batch)
            self.states = tuple(tensors[f"stream.state.{i}"] for i in range(len(initial)))
            if any(a.shape != b.shape for a, b in zip(self.states, initial, strict=True)):
                raise ValueError("the cell's states do not fit")
        self.losses = tensors["losses"].tolist()
        if len(self.losses) != state.step:
            raise ValueError("the curve is not as long as the run")
        self.step, self.seconds, self.points = state.step, state.seconds, list(state.points)
        self.streams.load(tensors)
        torch.set_rng_state(tensors["rng.torch"])  # last: making the model drew from it

    def _moments(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        parameter = self.model.get_parameter(name)
        found = {
            key: tensors[f"optimizer.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
        }
        if any(v.shape != parameter.shape for key, v in found.items() if key != "step"):
            raise ValueError(f"the optimizer's tensors for {name} do not fit")
        return found


def read_model(folder: Path) -> tuple[CharModel, Vocabulary, State]:
    """The model of a run, ready to write, without its text or its optimizer. Raises UserError."""
    saved = files.read(folder)
    _check_sizes(folder, saved)
    vocabulary = Vocabulary(saved.state.vocabulary)
    model = CharModel(_cell_of(folder, saved.state), len(vocabulary), saved.state.config)
    try:
        _load_model(model, saved.tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise files.damaged(folder, str(error)) from None
    return model.eval(), vocabulary, saved.state


def _load_model(model: CharModel, tensors: dict[str, Tensor]) -> None:
    """Fill the model from a checkpoint's tensors. Raises RuntimeError where they do not fit."""
    prefix = "model."
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    model.load_state_dict(found)


def _cell_of(folder: Path, state: State) -> Cell:
    """The cell, made of its text alone: a stranger's checkpoint names no file to read."""
    try:
        return Cell(state.cell.text, name=state.cell.name)
    except CellError as error:
        raise files.damaged(folder, f"its cell cannot be read: {error.what}") from None


def _check_sizes(folder: Path, saved: Checkpoint) -> None:
    """Before anything is made of the sizes a checkpoint names, its tensors must bear them out."""
    config = saved.state.config
    shapes = [tuple(v.shape) for k, v in saved.tensors.items() if k.startswith("model.")]
    sizes = {size for shape in shapes for size in shape}
    embedding = (len(saved.state.vocabulary), config.embedding)
    if (
        0 in embedding
        or embedding not in shapes
        or config.hidden > max(sizes)
        or config.layers > len(shapes)
    ):
        raise files.damaged(folder, "its tensors do not have the sizes it names")
