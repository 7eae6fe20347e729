"""Where an installation by pip begins: it takes the relay/ beside it, whatever else is called so.

The script that pip makes looks for modules where PYTHONPATH says first, and
`relay` is a common name: another project's relay/ would be run in the place of
ours, with ssh's bytes on its stdin. This module has the name of the
distribution, which belongs to nobody else. (`make install` has no need of it:
its script takes no notice of PYTHONPATH.)
"""

import os
import sys


def main() -> None:
    """Run pyrelay, and end the process."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = sys.path
    sys.path = [here]
    try:
        import relay  # it imports nothing; what is in it is then found beside it
    finally:
        sys.path = path
    if os.path.dirname(os.path.abspath(relay.__file__)) != os.path.join(here, "relay"):
        # Something that Python runs at its start has imported the other one, a .pth file or sitecustomize.
        sys.stderr.write(f"pyrelay: {relay.__file__} has been imported in the place of {here}/relay\n")
        sys.exit(255)
    # A script's own directory comes first, too: programs beside it are not modules.
    beside = os.path.dirname(os.path.abspath(sys.argv[0]))
    if not sys.flags.safe_path and path[:1] == [beside] and beside != here:
        del path[0]
    from relay.cli import main as run

    run()


if __name__ == "__main__":
    main()
