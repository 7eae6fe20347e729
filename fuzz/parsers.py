"""Fuzz one of the parsers of tests/beds/fuzzed.py: python fuzz/parsers.py fuzz/seeds/NAME [libFuzzer's options]."""

from __future__ import annotations

import os
import sys

import atheris

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "beds")]

with atheris.instrument_imports(include=["relay"]):
    from fuzzed import TARGETS

if __name__ == "__main__":
    target = TARGETS[os.path.basename(sys.argv.pop(1))]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
