"""The quantisations that a conversion can make, with llama.cpp's numbers for them (`llama_ftype`)."""

from __future__ import annotations

from dataclasses import dataclass

from llama_convert.errors import UsageError


@dataclass(frozen=True, slots=True)
class Quantization:
    """One way to store the weights.

    `speed` is how many million weights one core quantises in a second, measured on two-core x86 with AVX2;
    `importance` says that it is useless without an importance matrix.
    """

    name: str
    file_type: int
    speed: float
    advice: str
    importance: bool = False


QUANTIZATIONS: dict[str, Quantization] = {
    item.name: item
    for item in (
        Quantization("Q8_0", 7, 173, "practically without loss"),
        Quantization("Q6_K", 18, 32, "very close to the original"),
        Quantization("Q5_K_M", 17, 19, "close to the original"),
        Quantization("Q5_K_S", 16, 19, "close to the original, a little smaller"),
        Quantization("Q4_K_M", 15, 16, "the best balance, the default"),
        Quantization("Q4_K_S", 14, 16, "a little smaller and worse than Q4_K_M"),
        Quantization("Q4_0", 2, 260, "quantised fastest, and fast on CPUs"),
        Quantization("IQ4_XS", 30, 5.5, "as good as Q4_K_S and smaller, slower on CPUs"),
        Quantization("Q3_K_L", 13, 30, "noticeably worse"),
        Quantization("Q3_K_M", 12, 30, "where memory is short"),
        Quantization("Q3_K_S", 11, 30, "where memory is very short"),
        Quantization("IQ3_M", 27, 5.5, "as small as Q3_K_S, better with an importance matrix"),
        Quantization("Q2_K", 10, 23, "only for 13B and more"),
        Quantization("IQ2_M", 29, 3, "needs an importance matrix", importance=True),
    )
}
DEFAULT = "Q4_K_M"
UNQUANTIZED = ("F16", "BF16", "F32")


def split_quantizations(text: str) -> tuple[list[Quantization], str | None]:
    """The quantisations in a list such as "Q4_K_M,F16", and the unquantised type in it: F16, BF16, F32 or None.

    Raises UsageError where a name is not known, or there are two unquantised types.
    """
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    plain = [name for name in dict.fromkeys(names) if name in UNQUANTIZED]
    if len(plain) > 1:
        raise UsageError(f"{plain[0]} and {plain[1]}: one conversion writes one unquantised type")
    rest = parse_quantizations(",".join(name for name in names if name not in UNQUANTIZED))
    return rest, plain[0] if plain else None


def parse_quantizations(text: str) -> list[Quantization]:
    """The quantisations in a list such as "Q4_K_M,Q8_0"; upper and lower case are alike.

    Raises UsageError where a name is not known.
    """
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in QUANTIZATIONS]
    if unknown:
        known = ", ".join([*QUANTIZATIONS, *UNQUANTIZED])
        raise UsageError(f"unknown quantisation {unknown[0]}; a conversion can make {known}")
    return [QUANTIZATIONS[name] for name in dict.fromkeys(names)]
