"""The process that holds the shared hops: its loop, and when it ends.

A thread serves each request (job.py), because a login may wait. The loop moves
the bytes of all relays, in one thread. The process ends with the last hop.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import uvloop

from relay.errors import RelayError, Unserved, shortage
from relay.share import place
from relay.share.carrier import Carrier
from relay.share.door import Door
from relay.share.hops import Hops
from relay.share.job import Job
from relay.share.served import Served, has_hung_up, tell_end
from relay.share.wire import BadMessage, Ended
from relay.ssh.wire.busy import Busy

if TYPE_CHECKING:
    import _socket
    from asyncio import TimerHandle
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from relay.contract import Hop, ManyFlows, Stream
    from relay.share.holder_wire import HolderWire
    from relay.share.hops import SharedHop

LOOK = 1.0  # seconds between two looks at which relays have hung up during their login
SWITCH = 0.001  # seconds that a thread that computes for a login keeps the others waiting; 0.005 is the default
SETTLE = 30.0  # seconds that the loop may take to take a transport over; it takes milliseconds


def run(listener: _socket.socket, lock: int, path: str) -> NoReturn:
    """Run the holder, then end the process."""
    sys.setswitchinterval(SWITCH)
    os.environ.pop("KRB5CCNAME", None)  # it is the first relay's; every relay has its own tickets
    Holder(socket.socket(fileno=listener.detach()), lock, path).run()
    os._exit(0)


class Holder:
    """The holder. listener: its socket. path: the socket's directory. lock: the process that has it is the holder."""

    def __init__(self, listener: socket.socket, lock: int, path: str) -> None:
        self.loop = uvloop.new_event_loop()
        self.hops = Hops()
        self.relays: dict[Served, Sequence[SharedHop]] = {}
        self._door = Door(listener, self.loop, self._serve, self._look_round)
        self._listening = True
        self._lock = lock
        self._path = path
        self._carriers: dict[ManyFlows, Carrier] = {}
        self._driven: dict[Hop, Carrier] = {}
        self._jobs: dict[Job, HolderWire] = {}  # the jobs under way
        self._looking: TimerHandle | None = None
        self._timer: TimerHandle | None = None
        self._ending: list[threading.Thread] = []

    def run(self) -> None:
        """Serve until no hop, relay or request is left."""
        with suppress(OSError, ValueError):  # a relay takes three descriptors, and many shells allow 1024
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._door.open()
        self.loop.add_signal_handler(signal.SIGTERM, self.exit)
        self.loop.add_signal_handler(signal.SIGHUP, self.exit)
        self.loop.call_later(place.PATIENCE, self._look_round)  # ends the process if the first relay never comes
        self.loop.run_forever()
        for ending in self._ending:
            ending.join()

    # Requests

    def _serve(self, wire: HolderWire) -> None:
        """Serve one request, in its own thread. One whose relay the loop takes over is done when its bytes move."""
        handed = False
        try:
            wire.send("welcome")
            kind, fields = wire.receive()
            if kind == "call":
                handed = self._open(wire, fields)
            else:
                _answer(self, wire, kind)
        except (Ended, BadMessage):
            pass
        finally:
            if not handed:
                self.loop.call_soon_threadsafe(wire.finish, partial(self._request_is_done, wire))

    def _request_is_done(self, wire: HolderWire) -> None:
        self._door.requests.remove(wire)
        self._look_round()

    def _open(self, wire: HolderWire, fields: list[bytes]) -> bool:
        """Open a channel for a relay, and have the loop move its bytes; return whether the loop now owns the wire."""
        try:
            job = Job(wire, fields, self.hops, self._adopt)
        except (ValueError, IndexError, RelayError) as error:
            raise BadMessage(str(error)) from error
        finally:
            fields.clear()  # they hold the relay's environment, perhaps with a password; the job forgets its copy later
        handed = False
        try:
            _, fields = wire.receive()
            job.read(fields)
            handed = self._do(job, wire)
        except (ValueError, IndexError) as error:
            raise BadMessage(str(error)) from error
        finally:
            if not handed:
                job.close()
        return handed

    def _do(self, job: Job, wire: HolderWire) -> bool:
        """Open the channel that the job asks for, and hand it to the loop; return whether the loop now owns the wire.

        Raises Ended, BadMessage and ValueError.
        """
        self._jobs[job] = wire
        self.loop.call_soon_threadsafe(self._look_after_jobs)
        try:
            stream = job.open()
        except Unserved as error:
            wire.send("unserved", error.cause)
            return False
        except RelayError as error:
            wire.send("failed", type(error).__name__, error.cause, error.hint, error.place)
            return False
        except Exception as error:  # a fault of our own is reported like any other error
            if words := shortage(error):
                wire.send("unserved", f"the process that holds the shared hops: {words}")
                return False
            wire.send("failed", "", f"internal error: {type(error).__name__}: {error}", "", "")
            return False
        finally:
            del self._jobs[job]
        job.forget()
        try:
            wire.send("opened", job.leads_to, job.unserved)
            _, (detached,) = wire.receive()
            stdin, stdout = wire.take_fds(2)
        except BaseException:
            stream.close()
            raise
        begin = partial(self._begin, job, stream, (stdin, stdout), wire, detached == b"1")
        self.loop.call_soon_threadsafe(self._when_free, begin)
        return True

    def _look_after_jobs(self) -> None:
        """Give up the logins of relays that have hung up.

        poll reports a hang-up even while messages of the relay are still unread.
        """
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        for job, wire in list(self._jobs.items()):
            if has_hung_up(wire.socket.fileno()):
                job.give_up()
        if self._jobs:
            self._looking = self.loop.call_later(LOOK, self._look_after_jobs)

    # Data; everything below runs in the loop's thread, unless it says otherwise

    def _adopt(self, session: Hop) -> None:
        """Have the loop drive a hop's connection, if the hop has one. Called by the thread that has logged in."""
        session.park()  # it may wait: in this thread that delays no other relay
        done = threading.Event()

        def adopt() -> None:
            connection = session.take_over()
            done.set()
            if connection is not None:
                self._driven[session] = self._carrier(connection)
                self._driven[session].settle()

        self.loop.call_soon_threadsafe(self._when_free, adopt)
        done.wait(SETTLE)

    def _when_free(self, work: Callable[[], None]) -> None:
        """Do something now, or, where a hop on the way computes new keys, when it has: other hops do not wait."""
        try:
            work()
        except Busy as busy:
            self._carrier(busy.connection).later(partial(self._when_free, work))

    def _carrier(self, connection: ManyFlows) -> Carrier:
        carrier = self._carriers.get(connection)
        if carrier is None:
            carrier = self._carriers[connection] = Carrier(connection, self.loop)
        return carrier

    def _begin(self, job: Job, stream: Stream, stdio: tuple[int, int], wire: HolderWire, detached: bool) -> None:
        """Move a relay's bytes. detached: the relay's process has ended; ssh itself has the other end of stdio."""
        flow = stream.attach()
        if flow is None:
            for fd in set(stdio):
                os.close(fd)
            tell_end(wire, _loss(stream))
            self.hops.let_go(job.held, job.linger)
            wire.finish(partial(self._request_is_done, wire))
            return
        self.loop.call_soon(self._request_is_done, wire)
        carrier = self._carrier(cast("ManyFlows", flow.connection))  # a hop's has many

        def over(served: Served) -> None:
            del self.relays[served]
            self.hops.let_go(job.held, job.linger, served.moved)
            self.loop.call_soon(self._look_round)

        served = Served(stream, flow, stdio, wire, carrier=carrier, over=over)
        self.relays[served] = job.held
        served.begin(detached=detached)

    # The end

    def _look_round(self) -> None:
        """Close the hops that have expired; end the process when nothing is left."""
        for hop in self.hops.take_expired(time.monotonic()):
            self._close(hop)
        for connection, carrier in list(self._carriers.items()):
            if carrier.closed:
                carrier.settle()
                del self._carriers[connection]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        expiry = self.hops.next_expiry()
        if expiry is not None:
            self._timer = self.loop.call_later(max(expiry - time.monotonic(), 0) + 0.01, self._look_round)
        elif not self._door.requests and not self.relays and not self.hops.all():
            self._end()

    def _close(self, hop: SharedHop) -> None:
        carrier = self._driven.pop(hop.session, None) if hop.session is not None else None
        died = hop.session is not None and not hop.session.alive
        if hop.session is not None and carrier is not None:
            hop.session.close()
            carrier.settle()
        is_ours = carrier is None
        self._end_aside(partial(self._close_rest, hop, is_ours, died), partial(_close_what_waits, hop, is_ours))

    def _end_aside(self, work: Callable[[], None], instead: Callable[[], None]) -> None:
        """Do what may take a second, in a thread: other relays do not wait. The process ends after that.

        instead: what is done in this thread when no more threads may be started.
        """
        ending = threading.Thread(target=work)
        try:
            ending.start()
        except RuntimeError:
            instead()
            return
        self._ending = [*(each for each in self._ending if each.is_alive()), ending]

    def _close_rest(self, hop: SharedHop, is_ours: bool, died: bool) -> None:
        """Close what may wait. died: perhaps with the hop before, which may not know it yet (a ControlMaster's)."""
        _close_what_waits(hop, is_ours)
        if died and hop.outer is not None and not hop.outer.responds(0):
            with suppress(RuntimeError):  # the loop is over
                self.loop.call_soon_threadsafe(self._look_round)

    def stop(self) -> None:
        """Accept no new relays; after this returns, they start a new holder. Call it from any thread but the loop's."""
        done = threading.Event()

        def stop() -> None:
            self._stop()
            done.set()

        self.loop.call_soon_threadsafe(stop)
        done.wait(SETTLE)

    def exit(self) -> None:
        """End all relays, close all hops, and end the process. Call it from any thread."""
        self.loop.call_soon_threadsafe(self._exit)

    def _stop(self) -> None:
        if not self._listening:
            return
        self._listening = False
        place.withdraw(self._path, self._lock)
        self._door.close()
        os.close(self._lock)
        self.hops.stop()
        self._look_round()

    def _exit(self) -> None:
        self._stop()
        closed = RelayError("the shared hops were closed (-O exit)")
        for wire in self._door.requests:
            tell_end(wire, closed)
        for served in list(self.relays):
            served.finish_with(closed)
        for job in list(self._jobs):
            self._end_aside(job.end_programs, job.end_programs)
        for hop in reversed(self.hops.all()):
            self._close(hop)
        self.loop.call_soon(self.loop.stop)

    def _end(self) -> None:
        self._stop()
        self.loop.stop()


def _loss(stream: Stream) -> RelayError:
    """Why a stream ended before the loop could take it over."""
    try:
        stream.check()
    except RelayError as error:
        return error
    return RelayError("the connection was lost")


def _close_what_waits(hop: SharedHop, is_ours: bool) -> None:
    """End the programs that carry a hop, and free its memory.

    is_ours: close its connection too, since the loop does not drive it.
    """
    if hop.session is not None and is_ours:
        hop.session.close()
    hop.children.end()
    # A transport, its links and their buffers, megabytes of them, know each other, and so stay until they are searched
    # for; of itself Python does that rarely where little else becomes garbage.
    gc.collect()


def _answer(holder: Holder, wire: HolderWire, name: str) -> None:
    """Carry out a command of -O, and send its answer."""
    if name == "list":
        wire.send("lines", *_listing(holder))
    elif name == "check":
        wire.send("lines", f"Master running (pid={os.getpid()})")
    elif name == "stop":
        holder.stop()
        wire.send("lines", "Stop listening request sent.")
    elif name == "exit":
        holder.stop()  # a relay that comes after the answer is sent starts a new holder
        wire.send("lines", "Exit request sent.")
        holder.exit()


def _listing(holder: Holder) -> list[str]:
    """A line for each hop: the way to it, since when it is logged in, how many relays use it, bytes moved."""
    lines = []
    now = dict(holder.relays)
    for hop in holder.hops.all():
        moved = hop.moved + sum(served.moved for served, hops in now.items() if hop in hops)
        way = "/".join(each.name for each in hop.path)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(hop.since))
        state = f"since {since}" if hop.session is not None else "logging in"
        relays = "1 relay" if hop.relays == 1 else f"{hop.relays} relays"
        lines.append(f"{way}: {state}, {relays}, {moved} bytes")
    return lines
