"""What happens to bytes on their way: flips, cuts, doublings, numbers at the ends of their ranges."""

from __future__ import annotations

from struct import pack

from hypothesis import strategies as st

_EDGES = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes], most: int = 4) -> bytes:
    """A case of `whole` with one to `most` changes."""
    raw = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        match draw(st.sampled_from(("flip", "cut", "double", "end", "edge"))):
            case "flip" if raw:
                raw[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del raw[at : at + draw(st.integers(1, 16))]
            case "double":
                raw[at:at] = raw[at : at + draw(st.integers(1, 16))]
            case "end":
                del raw[at:]
            case "edge":
                value = pack("<q", draw(st.sampled_from(_EDGES)))[: draw(st.sampled_from((4, 8)))]
                raw[at : at + len(value)] = value
    return bytes(raw)
