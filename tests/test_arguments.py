"""What a constructor was called with is remembered, whoever calls it."""

import copy
import inspect
import pickle

import pytest
from torch import nn

from flare_geo.arguments import as_json, remembers_arguments


@remembers_arguments
class Base:
    def __init__(self, root, split="train", *, workers=1):
        self.seen = dict(self.config)


class Sub(Base):
    def __init__(self, root, *, sizes=(1, 2), **more):
        super().__init__(root, "test", **more)


class Leaf(Sub):
    pass


@remembers_arguments
class Layer(nn.Module):
    def __init__(self, width, bias=True):
        super().__init__()
        self.lin = nn.Linear(width, width, bias)


def test_arguments_of_the_outermost_constructor_with_defaults():
    assert Base("a").config == {"root": "a", "split": "train", "workers": 1}
    for cls in (Sub, Leaf):
        made = cls("a", workers=3)
        assert made.config == made.seen == {"root": "a", "sizes": (1, 2), "workers": 3}
        assert list(inspect.signature(cls).parameters) == ["root", "sizes", "more"]


def test_it_survives_copies_and_says_the_errors_of_the_constructor():
    layer = Layer(4, bias=False)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), Layer(**layer.config)):
        assert other.config == {"width": 4, "bias": False}
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'width'"):
        Layer()


def test_json_is_a_copy_and_what_it_cannot_hold_is_named():
    config = Sub("a").config
    written = as_json(config, "Sub")
    assert written == {"root": "a", "sizes": [1, 2]}
    config["sizes"] = layer = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="Sub cannot be written down: its argument 'sizes' is of"):
        as_json(config, "Sub")
    assert isinstance(layer, nn.Module)
    assert written["sizes"] == [1, 2]
