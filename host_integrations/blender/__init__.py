# SPDX-License-Identifier: GPL-3.0-or-later
"""rotomem in Blender: keys in, mattes out, from the Movie Clip and the Image Editor."""

from . import operators, panel, settings


def register():
    settings.register()
    operators.register()
    panel.register()


def unregister():
    panel.unregister()
    operators.unregister()
    settings.unregister()
