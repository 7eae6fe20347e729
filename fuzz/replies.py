"""Fuzz what SOCKS and HTTP proxies reply; tests/fuzzed.py says what any bytes may come to."""

from __future__ import annotations

import os
import sys

import atheris

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests")]

with atheris.instrument_imports(include=["relay"]):
    from fuzzed import replies_of_a_proxy

if __name__ == "__main__":
    atheris.Setup(sys.argv, replies_of_a_proxy)
    atheris.Fuzz()
