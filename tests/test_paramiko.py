"""The methods of paramiko that are overridden, or leant on, are those that were read.

Its minor version is pinned; when this fails after an update, read the methods
it names again, mend what overrides them, and write down their new sums.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import pytest
from paramiko.packet import Packetizer
from paramiko.transport import Transport

from relay.ssh import transport

SUMS = {
    "Packetizer.__init__": "4cd0771c14e11f39",
    "Packetizer._check_keepalive": "3b0c2f57931ff10c",
    "Packetizer.read_message": "d5d2c6765cab09ef",
    "Packetizer.readline": "73b49b97a87a7991",
    "Packetizer.set_keepalive": "de57d05e729bfaba",
    "Transport.__init__": "32526bf5422926b6",
    "Transport._check_banner": "b6aebd659ce8ff58",
    "Transport._negotiate_keys": "a300d8c5ab7b2448",
    "Transport._parse_channel_open_failure": "ae1a6d56eac04cb5",
    "Transport._parse_channel_open_success": "812dcbef708a29e1",
    "Transport._parse_disconnect": "b96366ac7bf428b4",
    "Transport._parse_global_request": "d25c3e12b50cfd26",
    "Transport._parse_kex_init": "bbcf0a37f113a8d7",
    "Transport._parse_newkeys": "0510151c03b937fd",
    "Transport._parse_request_failure": "bceae877e3e29af4",
    "Transport._parse_request_success": "c9d83256aa7aed74",
    "Transport._really_parse_kex_init": "bacd878572172b28",
    "Transport._send_kex_init": "2df1e57bcdb16a04",
    "Transport._verify_key": "076fc711c3454003",
    "Transport.run": "d658434778e57b94",
}


def overridden(ours: type, theirs: type) -> set[str]:
    return {name for name, value in vars(ours).items() if callable(value) and hasattr(theirs, name)}


def leant_on() -> dict[str, Any]:
    """By its name, each function of paramiko whose inner working the overrides count on."""
    names = overridden(transport.Transport, Transport) | {"run", "_negotiate_keys", "_parse_kex_init", "_parse_newkeys"}
    packets = overridden(transport.Packetizer, Packetizer) | {"_check_keepalive", "readline", "set_keepalive"}
    functions = {f"Transport.{name}": getattr(Transport, name) for name in names}
    functions |= {f"Packetizer.{name}": inspect.getattr_static(Packetizer, name) for name in packets}
    return functions


@pytest.mark.parametrize("name", sorted(leant_on()))
def test_as_it_was_read(name: str) -> None:
    source = inspect.getsource(leant_on()[name])
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == SUMS.get(name)
