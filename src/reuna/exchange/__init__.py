"""What crosses between a node and its parent, whichever place they are.

`egress` is the way up: the one process that holds keys and network. `intake` is the way in at
the parent. `link` carries the calls of a place to its egress over a Unix socket. Knows ports,
messages and the round's decisions; knows no place.
"""
