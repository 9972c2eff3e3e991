"""History run again: the reporter made anew from the topics alone, and past decisions through the rules of today.

Topics are read by hand-assigned partitions and without a group, so that no service's consumer notices. The database
is spoken to as `nightshift_replay`, which can write to its own schema alone; nothing here holds a connector to the
outside.
"""

ROLE = "nightshift_replay"
SCHEMA = "replay"
