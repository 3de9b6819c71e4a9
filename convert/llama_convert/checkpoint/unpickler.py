"""Reads the pickles that PyTorch writes for tensors, with an interpreter that knows only what such pickles contain.

Python's unpickler calls whatever a pickle names. Even with a list of allowed names, a pickle of a few hundred bytes can
keep it busy for ever or fill the memory. Here the work of each instruction and the number of instructions are bounded.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from llama_convert.checkpoint.tensor import DType
from llama_convert.errors import CorruptSource
from llama_convert.untrusted import excerpt

STORAGES = {"HalfStorage": DType.F16, "BFloat16Storage": DType.BF16, "FloatStorage": DType.F32}
_MOST_STEPS = 1 << 20
"""Instructions of one pickle; a tensor takes about 40."""
_MOST_AXES = 8
_MOST_NUMBER = 1 << 62


@dataclass(frozen=True, slots=True)
class StorageType:
    """Stands for `torch.HalfStorage` and its kin; `dtype` is None for element types that we do not convert."""

    name: str
    dtype: DType | None


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of elements in the file, named by `key`."""

    kind: StorageType
    key: str
    elements: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor as a view of a storage; `offset` and `stride` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        expected = tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        axes = zip(self.shape, self.stride, expected, strict=True)
        return all(size == 1 or have == want for size, have, want in axes)

    @property
    def last_element(self) -> int:
        """The index in the storage of the element furthest from its start."""
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


class _Refused(Exception):
    """The pickle contains something that a table of tensors does not need."""


def _table(*items: Any) -> dict[Any, Any]:
    """An ordered dictionary, which a pickle creates empty and fills afterwards."""
    if items not in ((), ([],)):
        raise _Refused("it creates a dictionary in an unknown way")
    return {}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> PickledTensor:
    if not isinstance(storage, Storage):
        raise _Refused("it has a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or not len(shape) == len(stride) <= _MOST_AXES:
        raise _Refused("it has a tensor with an impossible shape")
    if any(type(number) is not int or not 0 <= number < _MOST_NUMBER for number in (offset, *shape, *stride)):
        raise _Refused("it has a tensor with an impossible shape")
    return PickledTensor(storage, offset, shape, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _kind: Any, args: Any, _state: Any) -> Any:
    if function is not _rebuild_tensor:
        raise _Refused("it has a tensor of an unknown kind")
    return _rebuild_tensor(*args)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _table,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch", "Tensor"): "Tensor",
    ("torch.nn.parameter", "Parameter"): "Parameter",
}


def _named(module: Any, name: Any) -> Any:
    """What a global name stands for: an entry of `_ALLOWED`, or a storage type."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise _Refused("it has a name that is not a text")
    if (module, name) in _ALLOWED:
        return _ALLOWED[module, name]
    if module in ("torch", "torch.storage") and name.endswith("Storage"):
        return StorageType(name, STORAGES.get(name))
    raise _Refused(f"it asks for {excerpt(f'{module}.{name}')}")


def _storage(pid: Any) -> Storage:
    match pid:
        case ("storage", StorageType() as kind, str(key), _, int(elements)) if 0 <= elements < _MOST_NUMBER:
            return Storage(kind, key, elements)
    raise _Refused("it describes a storage in an unknown way")


class _Machine:
    """A stack and a memo, as the pickle's instructions use them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._marks: list[int] = []

    def run(self, raw: bytes) -> Any:
        """What the pickle describes."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if opcode.name == "STOP":
                return self.stack[-1]
            if opcode.name not in _STEPS:
                raise _Refused(f"it uses {opcode.name}")
            if count >= _MOST_STEPS:
                raise _Refused(f"it has more than {count} instructions")
            _STEPS[opcode.name](self, argument)
        raise _Refused("it has no end")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self._marks.append(len(self.stack))

    def marked(self) -> list[Any]:
        """Takes the values since the last mark off the stack."""
        return self.last(len(self.stack) - self._marks.pop())

    def last(self, count: int) -> list[Any]:
        """Takes the last `count` values off the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _Refused("it appends to something that is not a list")
        self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        """Sets keys, which are texts or small numbers: comparing others can take for ever."""
        if not isinstance(self.stack[-1], dict) or not all(map(_is_key, values[::2])):
            raise _Refused("it has a dictionary with keys of an unknown kind")
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def call(self, function: Any, arguments: Any) -> None:
        """Calls one of the functions in `_ALLOWED`; nothing else on the stack can be called."""
        if not callable(function) or not isinstance(arguments, tuple):
            raise _Refused("it calls something that is not a function")
        self.push(function(*arguments))


def _is_key(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 31)


_Step = Callable[[_Machine, Any], None]
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")


def _constant(value: Any) -> _Step:
    return lambda machine, _: machine.push(value)


def _tuple(count: int) -> _Step:
    return lambda machine, _: machine.push(tuple(machine.last(count)))


_STEPS: dict[str, _Step] = {
    **{name: _constant(value) for name, value in _CONSTANTS.items()},
    **{name: _tuple(count) for name, count in _TUPLES.items()},
    **dict.fromkeys(_VALUES, _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "APPEND": lambda machine, _: machine.append(machine.last(1)),
    "APPENDS": lambda machine, _: machine.append(machine.marked()),
    "SETITEM": lambda machine, _: machine.update(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "GLOBAL": lambda machine, text: machine.push(_named(*text.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.push(_named(*machine.last(2))),
    "REDUCE": lambda machine, _: machine.call(*machine.last(2)),
    "BUILD": lambda machine, _: machine.last(1).clear(),
    "BINPERSID": lambda machine, _: machine.push(_storage(machine.stack.pop())),
}
"""What PyTorch writes, and what its own safe loader knows, by the names of `pickletools`."""


def unpickle_tensors(path: Path, raw: bytes) -> dict[str, PickledTensor]:
    """The named tensors in the pickle `raw` of the file `path`.

    Raises CorruptSource where the pickle is broken, or asks for anything beyond tensors. Nothing in it is ever run.
    """
    try:
        found = _Machine().run(raw)
    except Exception as error:
        # A hostile pickle can make the steps raise almost anything.
        raise CorruptSource(
            f"{path}: refused, since its pickle is broken or holds more than tensors: {error}"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise CorruptSource(f"{path}: holds no table of tensors")
    return {str(name): tensor for name, tensor in found.items() if isinstance(tensor, PickledTensor)}
