"""The node in the Nodes menu, the self test in the menu bar."""

import nuke
import rotomem_nuke

nuke.menu("Nodes").addMenu("rotomem").addCommand("Rotomem", rotomem_nuke.create)
nuke.menu("Nuke").addMenu("rotomem").addCommand("Self test", rotomem_nuke.self_test)
