"""The plan and the outcome of a conversion, as `pull` and `convert` write them to standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_chat.cli.display import output
from llama_chat.cli.display.units import duration_text, size_text

if TYPE_CHECKING:
    from llama_convert.convert import Outcome
    from llama_convert.plan import Plan, PlannedModel


def print_plan(plan: Plan, json: bool) -> None:
    """What would be fetched and written, and whether it fits."""
    if json:
        output.print_json(plan.to_json())
        return
    output.print_result(output.format_table(_plan_rows(plan)))
    rows = [("FILE", "SIZE", "BITS", "MEMORY", "FITS", "TIME", ""), *(_model_row(plan, item) for item in plan.models)]
    output.print_result("\n" + output.format_table(rows))
    for item in plan.models:
        for kind, count in item.fallbacks.items():
            output.print_result(
                f"{item.quantization}: {count} tensors become {kind}, since their rows are not divisible by 256"
            )


def print_outcome(outcome: Outcome, json: bool) -> None:
    """The files that were made, and the report as a table."""
    report = outcome.report
    if json:
        products = [
            {"path": str(item.path), "quantization": item.kind, "size": item.nbytes, "reused": item.reused}
            for item in outcome.products
        ]
        output.print_json({"models": products, "report": report.to_json() if report else None})
        return
    for item in outcome.products:
        output.print_result(str(item.path))
        output.print_hint(f"{item.kind}, {size_text(item.nbytes)}{', was there already' if item.reused else ''}")
    if report:
        output.print_result("\n" + report.table())
        if report.plot:
            output.print_hint(f"plot: {report.plot}")


def _plan_rows(plan: Plan) -> list[tuple[str, ...]]:
    enough = "" if plan.fits_disk else "  not enough"
    return [
        ("model", plan.name),
        ("to fetch", size_text(plan.fetch_bytes)),
        ("disk needed", size_text(plan.disk_needed) + enough),
        ("disk free", size_text(plan.disk_free)),
        ("memory", size_text(plan.memory)),
    ]


def _model_row(plan: Plan, item: PlannedModel) -> tuple[str, ...]:
    bits = f"{item.bits_per_weight:.2f}" if item.bits_per_weight else ""
    fits = "yes" if plan.fits_memory(item) else "no"
    time = duration_text(item.seconds) if item.seconds else ""
    return item.quantization, size_text(item.nbytes), bits, size_text(item.run_memory), fits, time, item.advice
