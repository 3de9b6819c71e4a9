"""The options that `pull` and `convert` share, and the conversion that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_chat.cli.options import Decorator, call_flag, call_option, several
from llama_convert.quant.file_types import DEFAULT

if TYPE_CHECKING:
    from llama_convert.convert import ConvertOptions

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

conversion = several(
    call_flag("plan", "--plan", help="Show what would be fetched and written, and do nothing."),
    call_option(
        "outtype",
        "--outtype",
        kind=click.Choice(["auto", "f16", "bf16", "f32"]),
        default="auto",
        help="Type of the weights before quantisation; auto keeps the source's.",
    ),
    call_option("imatrix", "--imatrix", kind=_FILE, metavar="FILE", help="Importance matrix of the same model."),
    call_option(
        "context", "--context", kind=click.IntRange(1), metavar="N", help="Context length to write into the file."
    ),
    call_option(
        "rms_eps", "--rms-eps", kind=click.FLOAT, metavar="X", help="Epsilon of the norm, if the source's is wrong."
    ),
    call_option(
        "chat_template",
        "--chat-template",
        metavar="FILE|llama2|none",
        help="Chat template to write instead of the source's.",
    ),
    call_option("name", "--name", metavar="NAME", help="Name of the model, instead of the source's."),
    call_flag("keep_original", "--keep-f16", help="Keep the unquantised file too."),
    call_flag("verify", "--verify", help="Read everything back and compare it with the source."),
    call_flag("report", "--report", help="Measure what each quantisation loses, as a table and a plot."),
    call_option(
        "report_text", "--report-text", kind=_FILE, metavar="FILE", help="Text to measure on; implies --report."
    ),
    call_flag("force", "--force", help="Replace files that exist."),
)
hub = several(
    call_option("revision", "--revision", metavar="REV", help="Branch, tag or commit of the repository."),
    call_option(
        "endpoint", "--endpoint", metavar="URL", help="Another hub, such as a mirror; HF_ENDPOINT does the same."
    ),
    call_flag("send_token", "--send-token", help="Send your token to the hub of --endpoint too."),
    call_flag("keep_source", "--keep-source", help="Keep the weights that were fetched for a conversion."),
)


def quant_option(help: str) -> Decorator[Any]:
    """The option `--quant`; `pull` takes it for ready-made files too, so each command explains it."""
    return call_option("quant", "-q", "--quant", metavar="TYPE,…", help=f"{help}  [default: {DEFAULT}]")


def convert_options(params: Mapping[str, Any], out: Path) -> ConvertOptions:
    """The conversion that the command line describes, without the quantisations."""
    from llama_convert.checkpoint.tensor import DType
    from llama_convert.convert import ConvertOptions
    from llama_convert.llama_checkpoint import SourceOptions

    outtype = DType[params["outtype"].upper()] if params["outtype"] != "auto" else None
    text: Path | None = params["report_text"]
    return ConvertOptions(
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
