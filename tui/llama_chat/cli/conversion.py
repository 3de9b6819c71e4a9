"""What `pull` and `convert` share: the options of a conversion, the plan as a table, and the outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.display.stages import BarStages, JsonStages, Stages
from llama_chat.cli.display.units import duration_text, size_text
from llama_chat.cli.options import Decorator, flag
from llama_chat.errors import ExitCode

if TYPE_CHECKING:
    from llama_convert.convert import ConvertOptions, Outcome
    from llama_convert.plan import Plan, PlannedModel

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def option(name: str, *flags: str, help: str, **more: Any) -> Decorator[Any]:
    """An option with a value that belongs to one call."""
    variable = "LLAMA_CHAT_" + flags[-1].strip("-").replace("-", "_").upper()
    return click.option(*flags, name, envvar=variable, help=f"{help}  [{variable}]", **more)


conversion = options.several(
    option("quant", "-q", "--quant", metavar="TYPE,…", help="Quantisations; F16, BF16 or F32 for none.  [Q4_K_M]"),
    flag("plan", "--plan", help="Show what would be fetched and written, and stop."),
    option(
        "outtype",
        "--outtype",
        type=click.Choice(["auto", "f16", "bf16", "f32"]),
        default="auto",
        help="Type of the unquantised file; auto keeps the source's.",
    ),
    option("imatrix", "--imatrix", type=_FILE, metavar="FILE", help="Importance matrix of the same model."),
    option("context", "--context", type=click.IntRange(1), metavar="N", help="Tokens of context to write."),
    option("rms_eps", "--rms-eps", type=float, metavar="X", help="The norm's epsilon, where the source has it wrong."),
    option("chat_template", "--chat-template", metavar="FILE|llama2|none", help="Chat template, not the source's."),
    option("name", "--name", help="Name of the model."),
    flag("keep_original", "--keep-f16", help="Keep the unquantised file too."),
    flag("verify", "--verify", help="Read everything back and compare it with the source."),
    flag("report", "--report", help="Measure what each quantisation loses, as a table and a picture."),
    option("report_text", "--report-text", type=_FILE, metavar="FILE", help="Measure on this text."),
    flag("force", "--force", help="Replace what is there."),
)
hub = options.several(
    option("revision", "--revision", metavar="REV", help="Branch, tag or commit of the repository."),
    option("endpoint", "--endpoint", metavar="URL", help="Another hub, such as a mirror; HF_ENDPOINT does the same."),
    flag("send_token", "--send-token", help="Send the token to the other hub too."),
    flag("keep_source", "--keep-source", help="Keep the weights that were fetched for a conversion."),
)


def convert_options(params: Mapping[str, Any], out: Path) -> ConvertOptions:
    """The conversion that the command line describes.

    Raises UsageError of llama_convert where a quantisation is not one that a conversion can make.
    """
    from llama_convert.checkpoint.tensor import DType
    from llama_convert.convert import ConvertOptions
    from llama_convert.llama_checkpoint import SourceOptions
    from llama_convert.quant.file_types import DEFAULT

    outtype = DType[params["outtype"].upper()] if params["outtype"] != "auto" else None
    text = params["report_text"]
    chosen = ConvertOptions(
        out=out,
        source=SourceOptions(params["name"], params["context"], params["chat_template"], params["rms_eps"]),
        outtype=outtype,
        imatrix=params["imatrix"],
        keep_original=params["keep_original"],
        verify=params["verify"],
        report=params["report"] or text is not None,
        report_text=text.read_text("utf-8", errors="replace") if text else None,
        force=params["force"],
    )
    return chosen.with_kinds(params["quant"] or DEFAULT)


@contextmanager
def stages(json: bool) -> Iterator[Stages]:
    """The listener for a task; errors of llama_convert end the command with one line and their exit code."""
    from llama_convert.errors import ConvertError

    listener = JsonStages() if json else BarStages()
    try:
        yield listener
    except ConvertError as error:
        raise _ended(listener, str(error), ExitCode(error.exit_code)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _ended(listener, f"{error.filename or 'the system'}: {error.strerror or error}") from None
    except MemoryError:
        raise _ended(listener, "there is not enough memory") from None
    finally:
        listener.close()


def _ended(listener: Stages, reason: str, code: ExitCode = ExitCode.FAILURE) -> click.exceptions.Exit:
    """The end of a command, after one line about the reason."""
    listener.close()
    output.complain(reason)
    return click.exceptions.Exit(code)


def show_plan(plan: Plan, json: bool) -> None:
    """The plan on standard output."""
    if json:
        output.write_json(plan.to_json())
        return
    output.write(output.table(_plan_rows(plan)))
    rows = [("FILE", "SIZE", "BITS", "MEMORY", "FITS", "TIME", ""), *(_model_row(plan, item) for item in plan.models)]
    output.write("\n" + output.table(rows))
    for item in plan.models:
        for kind, count in item.fallbacks.items():
            output.write(f"{item.quantization}: {count} tensors become {kind}, rows are not divisible by 256")


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


def show_outcome(outcome: Outcome, json: bool) -> None:
    """What was made, on standard output; the report as a table."""
    report = outcome.report
    if json:
        products = [
            {"path": str(item.path), "quantization": item.kind, "size": item.nbytes, "reused": item.reused}
            for item in outcome.products
        ]
        output.write_json({"models": products, "report": report.to_json() if report else None})
        return
    for item in outcome.products:
        output.write(str(item.path))
        output.hint(f"{item.kind}, {size_text(item.nbytes)}{', was there already' if item.reused else ''}")
    if report:
        output.write("\n" + report.table())
        if report.plot:
            output.hint(f"plot: {report.plot}")
