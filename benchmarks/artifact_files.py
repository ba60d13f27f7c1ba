"""Benign model files from the real libraries, and which of them were left out when the allowlist was made.

Usage, in any environment in which some of the libraries are installed:

    python benchmarks/artifact_files.py FOLDER [LIBRARY...]

It writes one file for each variant of each thing that was left out, in turn in each way of saving it, and `index.json`.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import hashlib
import importlib
import io
import json
import logging
import os
import pickle
import signal
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # run as a script by interpreters that know no Casemate

from artifact_objects import LIBRARIES, things

__all__ = ["LEFT_OUT_PYTHON", "dumps", "left_out", "made", "versions", "write"]

LEFT_OUT_PYTHON = "3.12"
"""The environment of this Python holds one release of each library that the measured tables never saw."""
SECONDS = 15  # for one object


def left_out(kind):
    """Whether a class or topic is one of the fifth that the measured tables never saw: a fixed draw by its name."""
    return bool(kind) and hashlib.sha256(b"casemate, second draw: " + kind.encode()).digest()[0] % 5 == 0


def made(libraries=()):
    """Each thing that can be made here with its object; what fails or takes too long is passed over."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    signal.signal(signal.SIGALRM, _too_long)
    for thing in things(libraries):
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                found = thing.make()
        except Exception:
            continue
        finally:
            signal.alarm(0)
        yield thing, found


def _too_long(*_):
    raise TimeoutError


def versions():
    """Release of each library that is installed."""
    found = {}
    for name in (*LIBRARIES, "cloudpickle", "tokenizers", "accelerate"):
        try:
            found[name] = importlib.import_module(name).__version__
        except Exception:
            continue
    return found


# ----------------------------------------------------------------------------------------------------------- saving it


def dumps(found, library):
    """`{way: bytes}` of one object in every way that can save it."""
    first = 2 if library in ("torch", "transformers") else 0  # older ones make objects that end the interpreter
    ways = {f"pickle{protocol}.pkl": _pickling(protocol) for protocol in range(first, pickle.HIGHEST_PROTOCOL + 1)}
    ways["plain.joblib"] = lambda held: _joblib(held, 0)
    ways["cloud.pkl"] = _cloud
    if library in ("torch", "transformers"):
        ways["zip.pt"] = lambda held: _torch(held, True)
        ways["legacy.pth"] = lambda held: _torch(held, False)
    saved = {}
    for way, save in ways.items():
        with contextlib.suppress(Exception):
            saved[way] = save(found)
    return saved


def _packed():
    """More ways, for files that are only scanned: the compressions of joblib and of people."""
    ways = {f"{kind}.joblib": lambda held, kind=kind: _joblib(held, (kind, 3)) for kind in
            ("zlib", "gzip", "bz2", "xz", "lzma")}  # fmt: skip
    ways["pickle.pkl.gz"] = lambda held: gzip.compress(pickle.dumps(held), mtime=0)
    ways["pickle.pkl.bz2"] = lambda held: bz2.compress(pickle.dumps(held))
    return ways


def _pickling(protocol):
    return lambda held: pickle.dumps(held, protocol)


def _joblib(held, compress):
    import joblib

    buffer = io.BytesIO()
    joblib.dump(held, buffer, compress=compress)
    return buffer.getvalue()


def _cloud(held):
    import cloudpickle

    return cloudpickle.dumps(held)


def _torch(held, new):
    import torch

    buffer = io.BytesIO()
    torch.save(held, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def write(folder, libraries=(), everything=False):
    """Write the files of what was left out, at most 8 variants a kind; returns the index that lies beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    index, count = [], {}
    fresh = sys.version.startswith(LEFT_OUT_PYTHON)
    for thing, found in made(libraries):
        key = (thing.library, thing.kind)
        if count.get(key, 0) >= 8 or not (everything or fresh or left_out(thing.kind)):
            continue
        saved = {**dumps(found, thing.library)}
        for way, save in _packed().items():
            with contextlib.suppress(Exception):
                saved[way] = save(found)
        if not saved:
            continue
        count[key] = count.get(key, 0) + 1
        way = sorted(saved)[int(hashlib.sha256(repr(thing[:3]).encode()).hexdigest(), 16) % len(saved)]
        name = f"{len(index):04d}-{thing.library}-{_plain(thing.kind)}-{way}"
        (folder / name).write_bytes(saved[way])
        index.append({"file": name, "library": thing.library, "kind": thing.kind, "variant": thing.variant})
    record = {"python": sys.version.split()[0], "versions": versions(), "files": index}
    (folder / "index.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def _plain(name):
    return "".join(one if one.isalnum() else "_" for one in name)


def main():
    """Write the files to the folder named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("libraries", nargs="*")
    parser.add_argument("--everything", action="store_true", help="also what was not left out")
    options = parser.parse_args()
    write(options.folder, options.libraries, options.everything)  # says nothing: some library closes standard output


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
