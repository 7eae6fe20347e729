"""Streams and hops in this process, made as a run of pyrelay makes them."""

from __future__ import annotations

from contextlib import suppress

from lab import Lab
from peers import LOOPBACK

from relay import dial
from relay.config.lookup import look_up
from relay.config.settings import HopSettings
from relay.contract import Hop, Stream
from relay.dial import command
from relay.dial.engine import Engines
from relay.dial.first import first_leg
from relay.dial.plan import plan
from relay.run import Run
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import Prompt
from relay.share.client import Share, SharedStream
from relay.spec import options, route

SECONDS = 30.0  # for a set-up


class Dialled:
    """One run: `stream` is to a port of loopback, `hop` is the last one of the route.

    argv: pyrelay's, without the target. The lab ends all that it starts.
    """

    def __init__(self, lab: Lab, *argv: str) -> None:
        self._lab = lab
        self._argv = ("-F", str(lab.write_config()), *argv)

    def stream(self, port: int) -> Stream:
        return self._stream(f"{LOOPBACK}:{port}")

    def shared(self, port: int) -> Stream:
        """The same by shared hops, whose holder was started by another process: this one must not be its parent."""
        self._lab.pyrelay(*self._argv[2:-1], f"{self._argv[-1]}/{LOOPBACK}:{self._lab['h1'].port}")
        return self._stream(f"{LOOPBACK}:{port}", share=True)

    def lent(self, port: int) -> Stream:
        """The same as what the holder lends to a program."""
        stream = self.shared(port)
        assert isinstance(stream, SharedStream)
        lent: Stream = stream.lend()
        return lent

    def command(self, port: int) -> Stream:
        """A ProxyCommand that leads there; its ends are passed on one by one, as not every netcat does."""
        _, run = self._run(LOOPBACK)
        hop = HopSettings("h1", {}, {})
        stream: Stream = command.run(f"pyrelay {LOOPBACK} {port}", hop, run.progress, run.children)
        return stream

    def hop(self) -> Hop:
        way, run = self._run(f"{LOOPBACK}:1")
        names, control = dial._names(way, run, look_up(way, run.options, run.children))
        legs = plan(names.places(), names.found, run.options, master=control is not None)
        engines = Engines(run, legs.legs[0], control)
        hops: list[Hop] = list(dial.entered(legs, lambda: first_leg(legs.legs[0], run), engines.enter, run))
        for hop in reversed(hops):
            self._lab.at_end(hop.close)
        return hops[-1]

    def progress(self) -> Progress:
        """The clock of another relay that uses the hop."""
        return Progress(SECONDS)

    def _run(self, target: str) -> tuple[route.Route, Run]:
        *chosen, hops = self._argv
        parsed = options.parse([*chosen, f"{hops}/{target}" if hops else target])
        children = Children(self._lab.environment(), str(self._lab.home))
        self._lab.at_end(children.end)
        progress = Progress(SECONDS)
        run = Run(parsed, progress, Prompt(progress, children, batch=True), children)
        return route.parse(parsed.destination, parsed.port, parsed.delimiters), run

    def _stream(self, target: str, *, share: bool = False) -> Stream:
        way, run = self._run(target)
        holder = None
        if share:
            holder = Share(self._argv, run.options, self._lab.environment(), None, wait_on=lambda: True)
        stream: Stream = dial.dial(way, run, share=holder)
        self._lab.at_end(lambda: _close(stream))
        return stream


def _close(stream: Stream) -> None:
    with suppress(OSError):  # it has been closed
        stream.close()
