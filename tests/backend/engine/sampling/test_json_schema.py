"""Schemas to grammars: what llama.cpp writes with them at random is valid, and what is valid is allowed."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.grammar import Candidates, Grammar
from llama_backend.engine.llama.model import Model
from llama_backend.engine.sampling.json_schema import MOST_RULES, grammar_of
from llama_backend.errors import InvalidRequest

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {}}},
    "required": ["name"],
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "boolean"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}


class Writer:
    """Texts of the demo model's tokens under a grammar."""

    def __init__(self, model: Model) -> None:
        self._vocab = lib.llama_model_get_vocab(model.handle)
        self._model = model
        self._candidates = Candidates(model.vocab.size)

    def allows(self, schema: Any, text: str) -> bool:
        """Whether a text is all that a schema asks for."""
        grammar = Grammar(self._vocab, grammar_of(schema))
        try:
            for token in self._model.vocab.encode(text):
                if not grammar.allows(token):
                    return False
                grammar.accept(token)
            assert self._model.vocab.eos is not None
            return grammar.allows(self._model.vocab.eos)
        finally:
            grammar.free()

    def write(self, schema: Any, seed: int, most: int = 60) -> str | None:
        """A text at random; None where it has come to no end after `most` tokens. Short tokens come more often."""
        grammar, random, text = Grammar(self._vocab, grammar_of(schema)), Random(seed), b""
        try:
            for _ in range(most):
                self._candidates.fill(0)
                grammar.mask(self._candidates)
                allowed = [int(token) for token in random.choices(self._candidates.allowed, k=8)]
                ends = [token for token in self._candidates.allowed if self._ends(int(token))]
                token = int(ends[0]) if ends else min(allowed, key=lambda token: len(self._model.vocab.piece(token)))
                if self._model.vocab.is_eog(token):
                    return text.decode()
                grammar.accept(token)
                text += self._model.vocab.piece(token)
            return None
        finally:
            grammar.free()

    def _ends(self, token: int) -> bool:
        return self._model.vocab.is_eog(token) or self._model.vocab.piece(token) in (b'"', b"}", b"]")


@pytest.fixture(scope="module")
def writer(model: Model) -> Writer:
    return Writer(model)


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "object"}, ["{}", '{"a": [1, null]}', '{"a":{"b":true}}'], ["[]", "1", "", '{"a"}', "{} x"]),
        ({}, ["1", "[]", "null", '"a"', "-0.5e3"], ["01", "nul", "'a'", "1."]),
        (True, ["1", "{}"], ["x"]),
        ({"type": "string"}, ['"é\\n"', '""', r'"\u00e9"'], ['"\n"', "a", r'"\x"']),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"éèê"'], ['"a"', '"abcd"']),
        ({"minLength": 1}, ['"a"'], ['""', "1"]),
        ({"type": "string", "format": "date"}, ['"2024-02-28"'], ['"2024-13-01"', '"2024-01-32"', '"x"']),
        ({"type": "string", "format": "time"}, ['"23:59:00Z"', '"01:02:03.5+01:00"'], ['"24:00:00Z"', '"1:00"']),
        ({"type": "string", "format": "date-time"}, ['"2024-01-01T00:00:00Z"'], ['"2024-01-01"']),
        ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123"']),
        ({"type": "string", "format": "email"}, ['"a@b.c"'], []),
        ({"type": "integer"}, ["0", "-5", "120"], ["1.5", "007", "-"]),
        ({"type": "number"}, ["0", "-5.25", "1e-9"], ["1.", ".5", "NaN"]),
        ({"type": "boolean"}, ["true", " false"], ["True", "1"]),
        ({"type": "null"}, ["null"], ["0"]),
        ({"type": ["string", "null"], "maxLength": 1}, ['"a"', "null"], ["1", '"ab"']),
        ({"const": {"a": [1, 'é"\\']}}, ['{"a":[1,"é\\"\\\\"]}'], ["{}"]),
        ({"enum": ["a", 1, None]}, ['"a"', "1", "null"], ['"b"', "2"]),
        ({"type": "string", "enum": ["a"]}, ['"a"'], ["1"]),
        ({"anyOf": [{"type": "integer"}, {"const": "x"}]}, ["3", '"x"'], ['"y"']),
        ({"oneOf": [{"type": "null"}, {"type": "boolean"}]}, ["null", "true"], ["1"]),
        ({"allOf": [{"type": "null"}], "title": "T"}, ["null"], ["1"]),
        (
            PERSON,
            ['{"name":"A"}', '{"name":"A","age":3}', '{"name": "A", "tags": [1, "b"]}'],
            ["{}", '{"age":3}', '{"age":3,"name":"A"}', '{"name":"A","x":1}', '{"name":"A",}'],
        ),
        (
            {"properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
            ["{}", '{"a":null}', '{"b":null}', '{"a":null,"b":null}'],
            ['{"b":null,"a":null}', '{"c":null}'],
        ),
        (
            {"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "required": ["b"]},
            ['{"b":null}', '{"a":null,"b":null,"c":null}', '{"b":null,"c":null}'],
            ["{}", '{"a":null}', '{"a":null,"c":null}', '{"c":null}'],
        ),
        ({"type": "object", "additionalProperties": {"type": "null"}}, ['{"x":null,"y":null}', "{}"], ['{"x":1}']),
        ({"type": "object", "additionalProperties": False}, ["{}"], ['{"x":1}']),
        ({"type": "array"}, ["[]", '[1, "a"]'], ["[1,]", "{}"]),
        ({"type": "array", "items": {"type": "null"}}, ["[]", "[null,null]"], ["[1]"]),
        (
            {"items": {"type": "null"}, "minItems": 1, "maxItems": 2},
            ["[null]"],
            ["[]", "[null,null,null]"],
        ),
        ({"items": {"type": "null"}, "minItems": 2}, ["[null,null]", "[null,null,null]"], ["[]", "[null]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"prefixItems": [{"type": "null"}, {"const": 1}], "items": False}, ["[null,1]"], ["[null]", "[null,1,1]"]),
        (TREE, ['{"value":true}', '{"value":true,"next":{"value":false}}'], ["{}", '{"value":true,"next":{}}']),
        ({"properties": {"a": {"$ref": "#"}}}, ["{}", '{"a":{"a":{}}}'], ['{"a":1}']),
        ({"type": "integer", "minimum": 3, "maximum": 3}, ["3"], ["2", "4", "33"]),
    ],
)
def test_what_is_allowed(writer: Writer, schema: Any, valid: list[str], invalid: list[str]) -> None:
    assert [text for text in valid if not writer.allows(schema, text)] == []
    assert [text for text in invalid if writer.allows(schema, text)] == []
    json.loads(valid[0])


@pytest.mark.parametrize("schema", [{"type": "object"}, PERSON, TREE, {"type": "array", "maxItems": 3}, {}])
def test_what_is_written_at_random_is_json(writer: Writer, schema: Any) -> None:
    texts = [writer.write(schema, seed) for seed in range(8)]
    written = [text for text in texts if text is not None]
    assert written
    for text in written:
        json.loads(text)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 9),
        (1, 10),
        (7, 123),
        (100, 999),
        (-5, 5),
        (-120, -7),
        (99, 1001),
        (0, None),
        (13, None),
        (None, -1),
        (None, 7),
    ],
)
def test_the_limits_of_integers(writer: Writer, low: int | None, high: int | None) -> None:
    schema = {"type": "integer"}
    schema |= {} if low is None else {"minimum": low}  # type: ignore[dict-item]
    schema |= {} if high is None else {"exclusiveMaximum": high + 1}  # type: ignore[dict-item]
    edges = {0, 1, -1, 9, 10, 11, 99, 100, 101, -9, -10, 12345, -12345}
    for limit in (low, high):
        edges |= set() if limit is None else set(range(limit - 2, limit + 3))
    for number in edges:
        expected = (low is None or number >= low) and (high is None or number <= high)
        assert writer.allows(schema, str(number)) is expected, number


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "pattern": "a+"}, "'pattern'"),
        ({"type": "number", "minimum": 1}, "'minimum'"),
        ({"type": "integer", "multipleOf": 2}, "'multipleOf'"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "array", "contains": {}}, "'contains'"),
        ({"type": "object", "patternProperties": {}}, "'patternProperties'"),
        ({"type": "object", "minProperties": 1}, "'minProperties'"),
        ({"not": {}}, "'not'"),
        ({"if": {}, "then": {}}, "'if'"),
        ({"allOf": [{}, {}]}, "'allOf'"),
        ({"anyOf": [{}], "minLength": 2}, "'minLength' beside 'anyOf'"),
        ({"anyOf": []}, "a union"),
        ({"enum": []}, "enum"),
        ({"$ref": "other.json"}, "'$ref'"),
        ({"$ref": "#/$defs/none"}, "points to nothing"),
        ({"$ref": "#"}, "points to itself"),
        ({"type": "frog"}, "'frog'"),
        ({"type": {"a": 1}}, "is not one of JSON's"),
        ({"type": ["string", ["null"]]}, "'type' lists names"),
        ({"properties": {"a": {}}, "required": [["a"]]}, "'required' lists names"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "'minLength' is above 'maxLength'"),
        ({"type": "string", "minLength": -1}, "whole numbers"),
        ({"type": "string", "format": "date", "minLength": 3}, "beside 'format'"),
        ({"type": "integer", "minimum": 1.5}, "whole number"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "'minimum' is above 'maximum'"),
        ({"properties": {}, "required": ["a"]}, "'a' is required"),
        ({"properties": []}, "'properties'"),
        ({"properties": {"a": {"properties": {"b": {"pattern": ""}}}}}, "root.a.b: 'pattern'"),
        ({"prefixItems": [{}], "minItems": 5}, "'prefixItems'"),
        (False, "not a schema"),
        ("string", "not a schema"),
        ({"properties": {f"p{n}": {"type": "null"} for n in range(MOST_RULES)}}, "more than"),
    ],
)
def test_what_cannot_be_honoured_is_named(schema: Any, named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar_of(schema)
    assert named in caught.value.message
