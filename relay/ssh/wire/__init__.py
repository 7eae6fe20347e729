"""How bytes move: packets, channels, windows; and the room of paramiko, which is imported nowhere else.

library.py is the one door to paramiko: all others have its names from there.
"""
