"""rotomem in Nuke 14 to 16: keys out, the engine at work in a process of its own, mattes in.

node.py      the Rotomem node, described once; Rotomem.nk is made from it
objects.py   what an artist writes into its Objects knob
host.py      Nuke's data to a request of the engine's, and its mattes to Nuke's data
run.py       a request on its way: thread, progress, cancel
panel.py     what the buttons do
selftest.py  the whole way on a small shot of its own, told in a file
client.py    the engine seen from a host; copied in from rotomem when this folder is installed
"""

from .panel import cancel, check, clear, create, make_reads, release, render_plate, track
from .selftest import self_test

__all__ = ["cancel", "check", "clear", "create", "make_reads", "release", "render_plate", "self_test", "track"]
