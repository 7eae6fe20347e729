"""The entry point: the steps of a run in their order. Only this module prints the error that ends a run.

It also ends the process; the handler of a signal (run/guard.py) and a forked process (run/fdpass.py, share/) end by
themselves.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module makes enums of it, which delays a raw relay
import gc
import os
import sys

from relay.errors import EXIT_FAILED, EXIT_FAULT, Forked, RelayError, Unserved, plain, shortage
from relay.spec import PROXY_PASSWORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from relay.config.lookup import Lookup
    from relay.run import Run
    from relay.run.progress import Progress
    from relay.share.client import Share
    from relay.share.wire import Wire
    from relay.spec.options import Options
    from relay.spec.route import Route

STDIN, STDOUT, STDERR = 0, 1, 2
BY_HAND = """\
this is what ssh runs as its ProxyCommand: it carries bytes between here and the server's SSH port
hint: to log in, type ssh {}, with what `pyrelay --ssh-config` prints in ~/.ssh/config; Ctrl-C ends this"""


def main() -> NoReturn:
    """Run with the process's own arguments, then end the process at once: no thread or library runs after that."""
    gc.disable()  # until the relay begins: imported modules stay, and a search for garbage in them takes time
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until the guard handles Ctrl-C, it must not print a traceback
    if _signal.getsignal(_signal.SIGCHLD) is _signal.SIG_IGN:  # inherited, and no child of ours could be waited for
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    if sys.warnoptions:  # PYTHONWARNINGS: a user has no use for our libraries' deprecation warnings
        import warnings

        warnings.resetwarnings()
        warnings.simplefilter("ignore")
    for fd in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:  # it is closed, and the next open file would get its number (sanitise_stdfd, misc.c)
            os.open(os.devnull, os.O_RDWR)
    go_on: Callable[[], NoReturn] | None = None
    try:
        status = run(sys.argv[1:])
    except Forked as forked:
        go_on = forked.go_on
    if go_on is not None:
        del sys.argv[1:]
        go_on()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(status)


def run(argv: Sequence[str]) -> int:
    """Do what the arguments ask for; return the exit status."""
    parent = os.getppid()
    verbosity = 0
    try:
        secret = _take_secret()
        called = _call_holder(argv, secret)
        from relay.spec import options  # imported after the call: the holder works meanwhile

        chosen = options.parse(argv)
        verbosity = chosen.verbosity
        if chosen.action or chosen.control or chosen.known_hosts is not None:
            from relay.cli import instead  # a relay does not need it

            return instead.run(chosen, argv, secret, _say)
        return relay(chosen, parent, argv, called, secret)
    except RelayError as error:
        _say(f"{error}\n")
        return error.exit_code
    except Exception as error:  # the user must see a fault of our own as one line, too
        return _fault(error, verbosity)


def _fault(error: Exception, verbosity: int) -> int:
    """Say what is no failure of a leg: something is used up, or the fault is ours; the exit status."""
    if words := shortage(error):
        _say(f"{RelayError(words, hint='ulimit -a shows the limits')}\n")
        return EXIT_FAILED
    if verbosity >= 2:
        import traceback  # only needed here

        _say(plain("".join(traceback.format_exception(error))))
    _say(f"{RelayError(f'internal error: {type(error).__name__}: {error}', hint='-vv shows where')}\n")
    return EXIT_FAULT


def _take_secret() -> Mapping[str, str]:
    """Take the proxy's password out of the environment, so that no program that we start inherits it by chance."""
    if PROXY_PASSWORD not in os.environ:
        return {}
    from relay.run.secret import take  # few users set the variable

    return take()


def relay(chosen: Options, parent: int, argv: Sequence[str], called: Wire | None, secret: Mapping[str, str]) -> int:
    """Parse the route, dial it, and relay; return the exit status.

    parent: the process that started this one. called: a connection to the holder of shared hops, if it has been
    called. secret: the variables that were taken out of the environment.
    """
    from relay.run.progress import Progress
    from relay.spec import route  # imported after the call of the holder, as options is

    way = route.parse(chosen.destination, chosen.port, chosen.delimiters)
    if chosen.jump:
        way = route.behind(route.parse_jump(chosen.jump), way)
    progress = Progress(chosen.deadline, chosen.verbosity, strict=chosen.is_strict)
    _greet(chosen, way, progress)
    helper = None
    if chosen.fdpass:
        from relay.run import fdpass

        fdpass.check(STDOUT)
        if way.hops or (chosen.proxy is not None and chosen.proxy.is_layered):
            helper = fdpass.fork(STDOUT)  # it must happen before there is a second thread
            parent = helper.parent

    from relay.run import Run, guard  # a usage error does not need the modules that follow

    around = Run(chosen, progress, secret=secret)
    lookup: Lookup | None = None
    if way.hops:
        from relay.config.lookup import look_up

        lookup = look_up(way, chosen, around.children)  # ssh reads its files while we import the rest

    def wait_on() -> bool:
        return progress.remaining() > 0 and not guard.has_left(STDOUT, parent)

    share = _share(around, way, argv, called, wait_on)

    from relay import dial, pump

    end = guard.clean_up_on_signals(around.end)
    around.survive_stops()
    try:
        stream = guard.watch(
            lambda: dial.dial(way, around, lookup=lookup, share=share),
            progress,
            STDIN,
            STDOUT,
            parent,
        )
        progress.done()
        gc.freeze()
        gc.enable()
        if helper is not None:
            parent = helper.take_over(STDIN, STDOUT)
        elif chosen.fdpass:
            fdpass.hand_over(stream, STDOUT)
            return 0
        return pump.relay(stream, STDIN, STDOUT, parent=parent, alarm=guard.alarm())
    except guard.Gone:
        return EXIT_FAILED
    finally:
        end()


def _greet(chosen: Options, way: Route, progress: Progress) -> None:
    """Explain the program to a person who has started it by hand."""
    if os.isatty(STDIN) and os.isatty(STDOUT):
        from relay.spec.route import DEFAULT_PORT

        port = f"-p {chosen.port} " if chosen.port != DEFAULT_PORT else ""
        progress.note(0, BY_HAND.format(way if chosen.jump else f"{port}{chosen.destination}"))


def _call_holder(argv: Sequence[str], secret: Mapping[str, str]) -> Wire | None:
    """If hops are to be shared, call the holder first of all: it opens the channel while we parse our options."""
    if not any(word.startswith("--share") for word in argv) or "--explain" in argv or "--check" in argv:
        return None
    from relay.share import call  # few runs need it

    return call.early(argv, {**os.environ, **secret})


def _share(run: Run, way: Route, argv: Sequence[str], called: Wire | None, wait_on: Callable[[], bool]) -> Share | None:
    """The holder of shared hops, if the route's hops are to be shared; None otherwise, and `called` is closed.

    If stdin or stdout is a terminal, hops are not shared: the holder does not belong to the terminal, and would go on
    reading it while we are stopped. wait_on: whether to go on waiting for a holder that does not answer.
    """
    chosen = run.options
    if chosen.share is not None and way.hops and chosen.engine != "ssh":
        if not (os.isatty(STDIN) or os.isatty(STDOUT)):
            from relay.share.client import Share  # few runs need it

            try:
                return Share(argv, chosen, {**os.environ, **run.children.secret}, called, wait_on=wait_on)
            except Unserved as error:
                run.progress.note(1, f"not shared: {error.cause}")
                return None
            except RelayError:
                run.children.end()
                raise
        run.progress.note(1, "not shared: a terminal is stdin or stdout")
    if called is not None:
        called.close()
    return None


def _say(text: str) -> None:
    """Print text for a person on stderr. A closed stderr is not an error."""
    try:
        sys.stderr.write(text)
    except (OSError, ValueError, AttributeError):
        pass
