"""The rewards of a run, as `--rewards` names them: by name or from a user's file, with weights.

    --rewards tiou:1 format:0.2 mine.py:brevity:0.5 tiou*text_equal

A word is a name of `REWARDS` or `TEXT_REWARDS`, or FILE.py:FUNCTION; behind it, a weight (1 unless
given). Names joined by `*` are multiplied: the first then counts only where the others do. A
function is given what its parameters name, see `Scene`.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from types import ModuleType

from distime.train.rewards import REWARDS, Intervals, RewardError, find_reward
from distime.train.text_rewards import TEXT_REWARDS


@dataclass(frozen=True)
class Scene:
    """An answer beside the true one.

    Attributes:
        predicted: the answer's intervals in seconds, in the order in which it names them.
        truth: the true ones.
        duration: of the video, in seconds.
        text: the answer's words, `<TIME_STAMP>` where it names a time; None where there are none.
        true_text: likewise.
        finished: whether the answer ended by itself.
    """

    predicted: Intervals
    truth: Intervals
    duration: float
    text: str | None = None
    true_text: str | None = None
    finished: bool = True


SEEN = tuple(one.name for one in fields(Scene))
"""What a reward may name as its parameters."""
OF_INTERVALS = ("predicted", "truth", "duration")
"""Those that do not need the words."""


@dataclass(frozen=True)
class _Factor:
    name: str
    function: Callable[..., float]
    wants: tuple[str, ...]

    def value(self, scene: Scene, place: str) -> float:
        """Return one finite number.

        Raises:
            RewardError: the function failed or returned something else.
        """
        try:
            value = self.function(**{name: getattr(scene, name) for name in self.wants})
        except Exception as error:
            raise RewardError(
                f"--rewards {self.name} failed for {place}: {type(error).__name__}: {error}"
            ) from error
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            value = value.item()
        if not isinstance(value, Real) or not math.isfinite(value):
            what = repr(value) if isinstance(value, Real) else f"{value!r:.80}"
            if hasattr(value, "__len__") and not isinstance(value, str):
                what = f"{len(value)} values, {what}"
            raise RewardError(
                f"--rewards {self.name} returned {what} for {place}: it is called for one answer "
                "at a time, and must return one finite number"
            )
        return float(value)


@dataclass(frozen=True)
class ChosenReward:
    """One word of `--rewards`: a product of rewards, and its weight.

    Attributes:
        name: as it was given, without the weight.
        weight: in the sum of all.
        factors: of the product.
    """

    name: str
    weight: float
    factors: tuple[_Factor, ...]

    def value(self, scene: Scene, place: str) -> float:
        """Return the reward without its weight.

        Args:
            scene: what is rewarded.
            place: names the sample in errors.

        Raises:
            RewardError: a function failed, or returned anything but one finite number.
        """
        return math.prod(factor.value(scene, place) for factor in self.factors)

    @property
    def needs_words(self) -> bool:
        """Whether a factor looks at more than intervals."""
        return any(set(factor.wants) - set(OF_INTERVALS) for factor in self.factors)


def read_rewards(words: Sequence[str]) -> list[ChosenReward]:
    """Read the words of `--rewards`.

    Raises:
        RewardError: a reward is unknown, a file or function cannot be had, or a weight is none.
    """
    chosen = [_read(word) for word in words]
    names = [one.name for one in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RewardError(f"--rewards names {twice} twice: give it once, with its whole weight")
    return chosen


def _read(word: str) -> ChosenReward:
    name, weight = word, 1.0
    head, colon, tail = word.rpartition(":")
    if colon and not head.endswith(".py"):
        name = head
        try:
            weight = float(tail)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight) or weight == 0:
            raise RewardError(
                f"--rewards {word}: {tail!r} is no weight; give NAME:WEIGHT or "
                "FILE.py:FUNCTION:WEIGHT with a number other than 0"
            )
    return ChosenReward(name, weight, tuple(_factor(one) for one in name.split("*")))


def _factor(name: str) -> _Factor:
    file, is_file, function_name = name.rpartition(".py:")
    if is_file:
        function = _function(Path(f"{file}.py"), function_name)
    elif name.endswith(".py"):
        raise RewardError(f"--rewards {name}: say which function of it, as in {name}:FUNCTION")
    else:
        function = TEXT_REWARDS.get(name) or _named(name)
    return _Factor(name, function, _wants(name, function))


def _named(name: str) -> Callable[..., float]:
    try:
        return find_reward(name)
    except RewardError as error:
        like = difflib.get_close_matches(name, [*REWARDS, *TEXT_REWARDS], 3)
        hint = f" did you mean {' or '.join(like)}?" if like else ""
        raise RewardError(
            f"--rewards {name}:{hint} {error} Of words there are {', '.join(TEXT_REWARDS)}; your "
            "own is FILE.py:FUNCTION."
        ) from None


def _wants(name: str, function: Callable[..., float]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    needed = tuple(
        one.name
        for one in parameters
        if one.name in SEEN or (one.default is one.empty and one.kind not in _REST)
    )
    if strange := [one for one in needed if one not in SEEN]:
        raise RewardError(
            f"--rewards {name}: its parameter {strange[0]} is nothing that a reward is given; it "
            f"may name any of {', '.join(SEEN)}"
        )
    return needed


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _function(path: Path, name: str) -> Callable[..., float]:
    module = _module(path.resolve())
    function = getattr(module, name, None)
    if not callable(function):
        there = [one for one, value in vars(module).items() if inspect.isfunction(value)]
        raise RewardError(
            f"--rewards {path}:{name}: there is no such function in the file; it has "
            f"{', '.join(there) or 'none'}"
        )
    return function


@functools.cache
def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise RewardError(f"--rewards {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RewardError(
            f"--rewards {path}: it cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module
