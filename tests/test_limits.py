"""Limits at the fields: a value is taken in its plain type, or refused by its field's name."""

import json
import math
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsteer.cli.bench import Bench
from flowsteer.cli.distill import Distill
from flowsteer.cli.emoji import EmojiDetector
from flowsteer.cli.emoji_training import EmojiAutoencoder, EmojiTeacher
from flowsteer.cli.evaluate import EmojiReport, Evaluate
from flowsteer.cli.reproduce import Reproduce
from flowsteer.limits import Within, check_fields
from flowsteer.training import TrainingConfig
from flowsteer.training.distillation_config import DistillationConfig


@dataclass(frozen=True)
class Example:
    """One field of each kind."""

    count: Annotated[int, Within(1, 10)] = 4
    rate: Annotated[float, Within(0, 1, above=True)] = 0.5
    decay: Annotated[float, Within(0, 1, below=True)] | None = None
    choice: Literal["a", "b"] = "a"
    flag: bool = False
    text: str = "here"
    folder: Path | None = None
    seeds: tuple[Annotated[int, Within(0, 9)], ...] = ()

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Larger(Example):
    """Only the default is another."""

    count: int = 10


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"count": np.int64(3)}, 3),
        ({"rate": 1}, 1.0),
        ({"rate": np.float32(0.5)}, 0.5),
        ({"rate": Fraction(1, 4)}, 0.25),
        ({"decay": None}, None),
        ({"decay": 0}, 0.0),
        ({"text": Path("there")}, "there"),
        ({"folder": "there"}, Path("there")),
        ({"seeds": [1, np.int8(2)]}, (1, 2)),
    ],
)
def test_what_is_right_comes_out_in_its_plain_type(given, taken):
    (name,) = given
    value = getattr(Example(**given), name)
    assert value == taken and type(value) is type(taken)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count = 0 must be a whole number from 1 to 10"),
        ({"count": 11}, "count = 11 must be"),
        ({"count": 4.0}, "count = 4.0 must be a whole number"),
        ({"count": True}, "count = True"),
        ({"count": "4"}, "count = '4'"),
        ({"count": None}, "count = None"),
        ({"count": 10**400}, "count = 1000000000"),
        ({"count": 10**5000}, "count = <int too large to show>"),
        ({"rate": 0}, "rate = 0 must be a number above 0 and at most 1"),
        ({"rate": math.nan}, "rate = nan"),
        ({"rate": 10**400}, "rate = 10000"),
        ({"rate": "0.5"}, "rate = '0.5'"),
        ({"rate": False}, "rate = False"),
        ({"decay": 1}, "decay = 1 must be a number from 0 to below 1"),
        ({"choice": "c"}, "choice = 'c' is unknown; use one of a, b"),
        ({"choice": None}, "choice = None is unknown"),
        ({"choice": ["a"]}, "choice = ['a'] is unknown"),
        ({"flag": 1}, "flag = 1 is unknown; use one of True, False"),
        ({"text": ""}, "text = '' must be text of 1 to"),
        ({"text": "a\0b"}, "must be text"),
        ({"text": 7}, "text = 7 must be text"),
        ({"folder": 7}, "folder = 7 must be text"),
        ({"seeds": 3}, "seeds = 3 must be a tuple"),
        ({"seeds": (3, 10)}, "seeds = 10 must be a whole number from 0 to 9"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(given, message):
    with pytest.raises(ValueError) as error:
        Example(**given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_subclass_with_another_default_keeps_the_limit():
    assert Larger().count == 10
    with pytest.raises(ValueError, match="count = 11"):
        Larger(count=11)


CHECKED_WHEN_MADE = (TrainingConfig, DistillationConfig, Distill)
CHECKED_WHEN_MADE += (EmojiAutoencoder, EmojiTeacher, EmojiDetector)
CHECKED_WHEN_RUN = (Evaluate, EmojiReport, Reproduce, Bench)
NEEDED = {"output_dir": "out", "max_train_steps": 10}
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**12, -(10**12), 10**400, 10**5000, 0, 1, 2**32]),
    st.floats(),
    st.text(),
    st.sampled_from(["no", "bf16", "fp16", "linear", "cosine", "rolout", "wandb", "1", "\ud800"]),
    st.binary(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
)


@pytest.mark.parametrize("command", [*CHECKED_WHEN_MADE, *CHECKED_WHEN_RUN])
def test_every_number_has_both_limits(command):
    """Each field that holds a number refuses infinity and what no machine could do."""
    for field in fields(command):
        if "int" in str(field.type).lower() or "float" in str(field.type):
            for value in (10**18, math.inf, -math.inf, -1):
                given = (value,) if "tuple" in str(field.type) else value
                with pytest.raises(ValueError, match=field.name):
                    make(command, {field.name: given})


@given(data=st.data())
@pytest.mark.parametrize("command", [*CHECKED_WHEN_MADE, *CHECKED_WHEN_RUN])
def test_no_value_of_any_kind_is_a_traceback(command, data):
    names = st.sampled_from([field.name for field in fields(command)])
    changes = data.draw(st.dictionaries(names, ANYTHING, min_size=1, max_size=3))
    try:
        made = make(command, changes)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
        return
    json.dumps(asdict(made), default=str, allow_nan=False)
    if isinstance(made, TrainingConfig):
        assert 0 <= made.learning_rate_at(0, 0.5) <= made.learning_rate
        assert 0 < made.progress(1, 1e-3) <= 1
    if isinstance(made, DistillationConfig):
        assert made.edges(3.0).num_windows == made.windows
        assert 1 <= made.guidance_range(7.0)[0] <= made.guidance_range(7.0)[1]


def make(command, changes):
    """A command's settings, checked."""
    needed = {} if command in CHECKED_WHEN_RUN else NEEDED
    made = command(**(needed | changes))
    check_fields(made)
    return made
