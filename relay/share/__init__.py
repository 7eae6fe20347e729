"""Shared hops: one login per bastion, however many relays go through it.

    relay ---- unix socket ---- holder ---- hop ---- hop
                (client.py)      one process of the user, for all its relays

The holder keeps hops that have been logged in to, and moves the bytes of every
relay that goes through them (RFC 4254: many channels over one connection). The
relay that a user's ssh has started hands it stdin and stdout, and waits.

    place.py     where they meet: directory, socket, lock; who becomes the holder
    wire.py      the messages
    call.py      the first of them, before all else
    client.py    the relay's side
    holder.py    the process: its loop, and when it ends
    job.py       one request, in a thread of its own: entering hops, a person's answers
    hops.py      which hops there are, and who uses them
    served.py    one relay's bytes, moved by the loop
    control.py   -O list, check, stop and exit
"""
