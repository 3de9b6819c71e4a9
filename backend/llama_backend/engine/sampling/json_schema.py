"""Makes a GBNF grammar of llama.cpp for a JSON schema.

Everything that the grammar allows satisfies the schema, but not the other way round: objects have their properties in
the order of the schema, and no further ones if the schema names any. Keywords that the grammar cannot express are
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llama_backend.errors import InvalidRequest

MOST_RULES = 2000
"""The most rules of a grammar."""

_BASE = {
    "ws": r'| " " | "\n" [ \t]{0,20}',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt/] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": r'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "boolean": r'"true" | "false"',
    "null": r'"null"',
    "value": "object | array | string | number | boolean | null",
    "object": r'"{" ws (string ":" ws value ("," ws string ":" ws value)*)? ws "}"',
    "array": r'"[" ws (value ("," ws value)*)? ws "]"',
    "date": r'[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "hour": '[01] [0-9] | "2" [0-3]',
    "minute": "[0-5] [0-9]",
    "time": 'hour ":" minute ":" minute ("." [0-9]{1,6})? ("Z" | [-+] hour ":" minute)',
    "hex": "[0-9a-fA-F]",
    "uuid": r'hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}',
}
_FORMATS = {
    "date": r'"\"" date "\""',
    "time": r'"\"" time "\""',
    "date-time": r'"\"" date "T" time "\""',
    "uuid": r'"\"" uuid "\""',
}
_NOTES = frozenset(
    (
        "$schema",
        "$id",
        "$comment",
        "$anchor",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "example",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "additionalProperties",
    )
)
"""Keywords that say nothing about validity, or that the grammar satisfies anyway."""
_OF_TYPE: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "format"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format"}),
    "number": frozenset({"format"}),
    "boolean": frozenset(),
    "null": frozenset(),
}


def grammar_of(schema: Any) -> str:
    """The grammar for a schema. Raises InvalidRequest with the keyword that is not supported."""
    converter = _Converter(schema)
    root = converter.visit(schema, "root")
    rules = {"root": f"ws {root} ws"} | converter.rules
    return "\n".join(f"{name} ::= {body}" for name, body in rules.items()) + "\n"


def _refuse(text: str) -> InvalidRequest:
    return InvalidRequest(f"json_schema: {text}", param="json_schema")


def literal(text: str) -> str:
    """A text as a terminal of a grammar."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def json_literal(value: Any) -> str:
    """A JSON value without spaces as a terminal of a grammar."""
    return literal(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class _Converter:
    """The rules made so far. A visit returns an expression that stands for one item."""

    def __init__(self, schema: Any) -> None:
        self.rules = dict(_BASE)
        self._root = schema
        self._references: dict[str, str] = {}

    def visit(self, schema: Any, where: str) -> str:
        """The expression for a part of the schema, which is at `where`."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise _refuse(f"{where} is not a schema")
        for keyword, convert in self._keywords().items():
            if keyword in schema:
                self._check_alone(schema, keyword, where)
                return convert(schema[keyword], where)
        return self._typed(schema, where)

    def _keywords(self) -> dict[str, Callable[[Any, str], str]]:
        """Keywords that stand alone in a schema, with the methods that convert them."""
        return {
            "$ref": self._reference,
            "const": lambda value, _: json_literal(value),
            "enum": self._enum,
            "anyOf": self._union,
            "oneOf": self._union,
            "allOf": self._all_of,
        }

    @staticmethod
    def _check_alone(schema: dict[str, Any], keyword: str, where: str) -> None:
        allowed = _NOTES | {keyword} | ({"type"} if keyword in ("const", "enum") else set())
        for other in schema:
            if other not in allowed:
                raise _refuse(f"{where}: {other!r} beside {keyword!r} is not supported")

    def _typed(self, schema: dict[str, Any], where: str) -> str:
        kind = schema.get("type") or _implied_type(schema)
        if kind is None:
            self._check(schema, frozenset(), where)
            return "value"
        if isinstance(kind, list):
            _check_names(kind, "'type'", where)
            return self._union([schema | {"type": one} for one in kind], where, of_types=True)
        if not isinstance(kind, str) or kind not in _OF_TYPE:
            raise _refuse(f"{where}: type {kind!r} is not one of JSON's")
        self._check(schema, _OF_TYPE[kind], where)
        made = {"object": self._object, "array": self._array, "string": self._string, "integer": self._integer}
        return made[kind](schema, where) if kind in made else str(kind)

    @staticmethod
    def _check(schema: dict[str, Any], allowed: frozenset[str], where: str) -> None:
        for keyword in schema:
            if keyword != "type" and keyword not in allowed | _NOTES:
                raise _refuse(f"{where}: {keyword!r} is not supported")

    def _enum(self, values: Any, where: str) -> str:
        if not isinstance(values, list) or not values:
            raise _refuse(f"{where}: enum needs at least one value")
        return f"({' | '.join(map(json_literal, values))})"

    def _union(self, schemas: Any, where: str, of_types: bool = False) -> str:
        if not isinstance(schemas, list) or not schemas:
            raise _refuse(f"{where}: a union needs at least one schema")
        if of_types:
            schemas = [_only_of_type(schema) for schema in schemas]
        return f"({' | '.join(self.visit(schema, where) for schema in schemas)})"

    def _all_of(self, schemas: Any, where: str) -> str:
        if not isinstance(schemas, list) or len(schemas) != 1:
            raise _refuse(f"{where}: 'allOf' with more than one schema is not supported")
        return self.visit(schemas[0], where)

    def _reference(self, pointer: Any, where: str) -> str:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise _refuse(f"{where}: '$ref' can only point to a part of the same schema, as in '#/$defs/name'")
        if pointer not in self._references:
            name = self._references[pointer] = f"ref{len(self._references)}"
            self._add(name, self.visit(self._resolve(pointer, where), pointer))
        return self._references[pointer]

    def _resolve(self, pointer: str, where: str) -> Any:
        target = self._root
        for part in pointer[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or key not in target:
                raise _refuse(f"{where}: '$ref' {pointer!r} points to nothing")
            target = target[key]
        if isinstance(target, dict) and target.get("$ref") == pointer:
            raise _refuse(f"{where}: '$ref' {pointer!r} points to itself")
        return target

    def _object(self, schema: dict[str, Any], where: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise _refuse(f"{where}: 'properties' is an object and 'required' a list")
        _check_names(required, "'required'", where)
        for name in required:
            if name not in properties:
                raise _refuse(f"{where}: {name!r} is required but not among the properties")
        if not properties:
            return self._map(schema.get("additionalProperties", True), where)
        pairs = [self._pair(name, value, where) for name, value in properties.items()]
        return self._new(f'"{{" ws {self._members(pairs, [name in required for name in properties])} ws "}}"')

    def _map(self, values: Any, where: str) -> str:
        """An object whose schema names no properties."""
        if values is False:
            return '("{" ws "}")'
        pair = f'string ":" ws {self.visit(values, f"{where}.additionalProperties")}'
        return self._new(f'"{{" ws ({pair} ("," ws {pair})*)? ws "}}"')

    def _pair(self, name: str, schema: Any, where: str) -> str:
        return self._new(f'{json_literal(name)} ":" ws {self.visit(schema, f"{where}.{name}")}')

    def _members(self, pairs: list[str], required: list[bool]) -> str:
        """The pairs in their order with commas between them; those that are not required may be missing.

        Each pair up to the first required one may come first. For each pair there is a rule for what may follow it.
        """
        rest, starts = "", list[str]()
        for pair, must in zip(reversed(pairs), reversed(required), strict=True):
            starts = [f"{pair} {rest}".strip()] + ([] if must else starts)
            rest = self._new(f'"," ws {pair} {rest}' if must else f'("," ws {pair})? {rest}')
        expression = " | ".join(starts)
        return f"({expression})" if any(required) else f"({expression})?"

    def _array(self, schema: dict[str, Any], where: str) -> str:
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            raise _refuse(f"{where}: 'prefixItems' is a list")
        items = schema.get("items", not first)
        least, most = self._bounds(schema, "minItems", "maxItems", where)
        if not first:
            return self._list(items, least, most, where)
        if least > len(first) or (most is not None and most < len(first)):
            raise _refuse(f"{where}: 'minItems' and 'maxItems' beside 'prefixItems' are not supported")
        made = [self.visit(item, f"{where}.prefixItems[{index}]") for index, item in enumerate(first)]
        return self._new('"[" ws ' + ' "," ws '.join(made) + ' ws "]"')

    def _list(self, items: Any, least: int, most: int | None, where: str) -> str:
        if most == 0 or items is False:
            return '("[" ws "]")'
        item = self.visit(items, f"{where}[]")
        more = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        expression = f'{item} ("," ws {item}){more}'
        return self._new(f'"[" ws {expression if least else f"({expression})?"} ws "]"')

    def _string(self, schema: dict[str, Any], where: str) -> str:
        least, most = self._bounds(schema, "minLength", "maxLength", where)
        name = schema.get("format")
        if isinstance(name, str) and name in _FORMATS:
            if least or most is not None:
                raise _refuse(f"{where}: a length beside 'format' is not supported")
            return f"({_FORMATS[name]})"
        if not least and most is None:
            return "string"
        return rf'("\"" char{{{least},{"" if most is None else most}}} "\"")'

    def _integer(self, schema: dict[str, Any], where: str) -> str:
        low = _limit(schema, "minimum", "exclusiveMinimum", 1, where)
        high = _limit(schema, "maximum", "exclusiveMaximum", -1, where)
        if low is None and high is None:
            return "integer"
        if low is not None and high is not None and low > high:
            raise _refuse(f"{where}: 'minimum' is above 'maximum'")
        return self._new(integers(low, high))

    @staticmethod
    def _bounds(schema: dict[str, Any], low: str, high: str, where: str) -> tuple[int, int | None]:
        least, most = schema.get(low, 0), schema.get(high)
        if not all(isinstance(value, int) and value >= 0 for value in (least, most or 0)):
            raise _refuse(f"{where}: {low!r} and {high!r} are whole numbers")
        if most is not None and most < least:
            raise _refuse(f"{where}: {low!r} is above {high!r}")
        return least, most

    def _new(self, body: str) -> str:
        name = f"r{len(self.rules)}"
        self._add(name, body)
        return name

    def _add(self, name: str, body: str) -> None:
        if len(self.rules) > MOST_RULES:
            raise _refuse(f"it needs more than {MOST_RULES} rules")
        self.rules[name] = body


def _check_names(names: list[Any], keyword: str, where: str) -> None:
    if not all(isinstance(name, str) for name in names):
        raise _refuse(f"{where}: {keyword} lists names")


def _implied_type(schema: dict[str, Any]) -> str | None:
    for kind in ("object", "array", "string"):
        if _OF_TYPE[kind] & schema.keys():
            return kind
    return None


def _only_of_type(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of one of several types, without the keywords of the others."""
    kind = schema["type"]
    foreign = frozenset[str]().union(*_OF_TYPE.values()) - _OF_TYPE.get(kind, frozenset())
    return {keyword: value for keyword, value in schema.items() if keyword not in foreign}


def _limit(schema: dict[str, Any], name: str, exclusive: str, step: int, where: str) -> int | None:
    found = [(schema[key], shift) for key, shift in ((name, 0), (exclusive, step)) if key in schema]
    limits = [value + shift for value, shift in found if isinstance(value, int) and not isinstance(value, bool)]
    if len(limits) < len(found):
        raise _refuse(f"{where}: {name!r} of an integer is a whole number")
    return (max if step > 0 else min)(limits) if limits else None


def integers(low: int | None, high: int | None) -> str:
    """An expression for the integers from `low` to `high`; None means no limit."""
    parts = []
    if low is None or low < 0:
        magnitudes = _naturals(max(1, -high) if high is not None else 1, None if low is None else -low)
        parts.append(f'"-" ({magnitudes})')
    if high is None or high >= 0:
        parts.append(_naturals(max(low or 0, 0), high))
    return " | ".join(parts)


def _naturals(low: int, high: int | None) -> str:
    """Natural numbers from `low` to `high`, as alternatives by their number of digits."""
    parts, digits = [], len(str(low))
    while high is None or digits <= len(str(high)):
        start = max(low, 0 if digits == 1 else 10 ** (digits - 1))
        end = 10**digits - 1 if high is None else min(high, 10**digits - 1)
        parts.append(_same_length(str(start), str(end)))
        digits += 1
        if high is None:
            parts.append(f"[1-9] [0-9]{{{digits - 1},15}}" if digits <= 16 else "[1-9] [0-9]{16}")
            break
    return " | ".join(parts)


def _same_length(low: str, high: str) -> str:
    """Numbers between two that have the same number of digits."""
    if low == high:
        return literal(low)
    head, digits = low[0], len(low) - 1
    if digits == 0:
        return f"[{low}-{high}]"
    if low[1:] == "0" * digits and high[1:] == "9" * digits:
        return f"[{head}-{high[0]}] [0-9]{{{digits}}}"
    if head == high[0]:
        return f"{literal(head)} ({_same_length(low[1:], high[1:])})"
    parts = [f"{literal(head)} ({_same_length(low[1:], '9' * digits)})"]
    if int(head) + 1 <= int(high[0]) - 1:
        parts.append(f"[{int(head) + 1}-{int(high[0]) - 1}] [0-9]{{{digits}}}")
    parts.append(f"{literal(high[0])} ({_same_length('0' * digits, high[1:])})")
    return " | ".join(parts)
