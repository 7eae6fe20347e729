"""Fuzz what tests/beds/fuzzed.py or fuzzed_wire.py has: python fuzz/target.py NAME [libFuzzer's options].

NAME: of a target, such as chacha20-poly1305@openssh.com, or of a directory in fuzz/seeds.
"""

from __future__ import annotations

import os
import sys

import atheris

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "beds")]

with atheris.instrument_imports(include=["relay"]):
    from fuzzed import TARGETS
    from fuzzed_wire import WIRE

if __name__ == "__main__":
    target = (TARGETS | WIRE)[sys.argv.pop(1).removeprefix("fuzz/seeds/")]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
