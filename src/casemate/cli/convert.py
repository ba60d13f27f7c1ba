"""`casemate convert`: a model file into a format that runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["convert"]


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A pickle, a joblib, skops, torch, npy or npz file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A .skops, .onnx, .safetensors or .npz file.")],
    data: Annotated[
        Path | None, typer.Option(help="Rows to compare the answers on: .npy, .npz, .csv, .parquet; else random.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a pickle that may run code, whatever its scan says.")
    ] = False,
) -> int:
    """Write a model in a format that runs nothing; its answers stay."""
    from casemate.artifacts.convert import convert_file
    from casemate.cli._show import show

    done = convert_file(source, target, data=data, trust=trust)
    lines = [
        f"wrote {done.target}",
        f"compared {done.compared:,} {done.what}: largest difference {done.difference:.3g}",
    ]
    if done.left_out:
        lines.append(f"left out: {', '.join(done.left_out[:10])}" + (" ..." if len(done.left_out) > 10 else ""))
    show(*lines)
    return 0
