"""Shared hops: one login per bastion, however many relays go through it.

    relay ---- unix socket ---- holder ---- hop ---- hop
                (client.py)      one process of the user, for all its relays

The holder keeps hops logged in, and moves the bytes of every relay that goes
through them (RFC 4254: many channels over one connection). The relay that a
user's ssh has started hands its stdin and stdout to the holder, and waits.

    place.py     where a relay and the holder meet: directory, socket, lock; which process becomes the holder
    wire.py      the messages; holder_wire.py: the holder sends them without waiting for the relay
    call.py      a relay's first message, sent before it does anything else
    client.py    the relay's side
    holder.py    the holder's process: its loop, and when it ends
    door.py      who comes in to it: relays, and those without room; commands
    job.py       one request, in its own thread: logs in to hops, asks the person; remote.py: that person, over the wire
    ahead.py     a channel from a shared hop, which may be opened before the relay has said that it wants it
    carry.py     a first hop's ProxyCommand, run by the relay; carried.py: what the holder has of it
    hops.py      the hops that exist, and which relays use them; key.py: which relays may use the same
    carrier.py   the connection to a hop, driven by the loop
    served.py    one relay's bytes, moved by the loop
    control.py   -O list, check, stop and exit
"""
