"""The text format, read by Prometheus' own parser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from llama_backend.server.prometheus import Histogram, Page

VALUES = st.floats(min_value=0, max_value=1e9) | st.integers(min_value=0, max_value=1 << 53)


def samples(page: Page) -> list[tuple[str, dict[str, str], float]]:
    families = text_string_to_metric_families(page.content.decode())
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r")), VALUES)
def test_labels_and_numbers_are_read_as_they_were_written(label: str, value: float) -> None:
    page = Page("p_")
    page.counter("a_total", "One.", ({"l": label, "m": "x"}, value))
    page.gauge("b", "Two.", ({}, value), ({"l": label}, 0))
    assert samples(page) == [
        ("p_a_total", {"l": label, "m": "x"}, value),
        ("p_b", {}, value),
        ("p_b", {"l": label}, 0),
    ]


@given(st.lists(st.floats(min_value=0, max_value=1000)))
def test_a_histogram_has_each_value_in_all_buckets_that_are_large_enough(values: list[float]) -> None:
    histogram, page = Histogram(0.5, 1.0, 100.0), Page("")
    for value in values:
        histogram.observe(value)
    page.histogram("h", "Of values.", ({"m": "x"}, histogram))
    found = samples(page)
    for bound, (name, labels, count) in zip((0.5, 1.0, 100.0, float("inf")), found, strict=False):
        assert (name, float(labels["le"]), labels["m"]) == ("h_bucket", bound, "x")
        assert count == sum(value <= bound for value in values)
    assert found[4] == ("h_sum", {"m": "x"}, sum(values))
    assert found[5] == ("h_count", {"m": "x"}, len(values) == histogram.count and histogram.count)


def test_what_is_unknown_is_left_out() -> None:
    page = Page("p_")
    page.gauge("a", "Nothing.", ({}, None))
    page.counter("b_total", "Nothing.")
    page.histogram("c", "Nothing.")
    assert page.content == b""
