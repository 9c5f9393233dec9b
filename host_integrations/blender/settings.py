# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scene and the preferences remember."""

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)


class RotomemObject(bpy.types.PropertyGroup):
    """One object: where its key masks come from."""

    name: StringProperty(name="Name", default="object", description="Name of the object; its matte is called so")
    source: EnumProperty(
        name="Keys from",
        items=[
            ("MASK", "Mask", "A mask; its key frames are keys, or the frame it was made on"),
            ("IMAGE", "Image", "A painted image, or a render: its alpha, else its brightness"),
            ("FILE", "File", "A file or a sequence of files with the frame number in the name"),
            ("NODE", "Node", "A node of the compositor: its Alpha, Matte or Mask, else the alpha of its Image"),
        ],
    )
    mask: PointerProperty(name="Mask", type=bpy.types.Mask)
    image: PointerProperty(name="Image", type=bpy.types.Image)
    path: StringProperty(name="File", subtype="FILE_PATH", description="A soft matte or a label map")
    node: StringProperty(name="Node", description="A node of the scene's compositor, by its name")
    frames: StringProperty(
        name="Frames",
        description="Key frames, such as 1001, 1050; empty: the mask's own key frames, else the current frame",
    )


class RotomemScene(bpy.types.PropertyGroup):
    """What the panel shows."""

    clip: PointerProperty(name="Plate", type=bpy.types.MovieClip, description="The plate to track")
    image: PointerProperty(name="Plate image", type=bpy.types.Image, description="The plate, as an image sequence")
    objects: CollectionProperty(type=RotomemObject)
    active: IntProperty(name="Object")
    whole: BoolProperty(name="Whole plate", default=True, description="Every frame of the plate")
    first: IntProperty(name="First", default=1)
    last: IntProperty(name="Last", default=100)
    model: StringProperty(name="Model", default="xmem-s", description="A bundled model or a checkpoint file")
    size: IntProperty(
        name="Size", default=480, min=0, description="Shorter side that the network sees; 0 is the plate's own"
    )
    edge: EnumProperty(
        name="Edge",
        items=[
            ("DEFAULT", "Default", "What rotomem finds best"),
            ("off", "Off", "The network's mask, enlarged"),
            ("guided", "Guided", "Edges follow the plate"),
        ],
    )
    folder: StringProperty(name="Output", subtype="DIR_PATH", default="//rotomem/")
    wire: BoolProperty(name="Into the compositor", default=True, description="Add the result to the compositor")
    crypto: BoolProperty(name="Cryptomatte", description="Write a Cryptomatte too, and add its node")
    tolerance: FloatProperty(
        name="Tolerance", default=1.0, min=0.05, max=100, description="Pixels that masks made of mattes may be off"
    )
    # Of the run, not saved with the file.
    running: BoolProperty(options={"SKIP_SAVE"})
    progress: FloatProperty(min=0, max=1, options={"SKIP_SAVE"})
    message: StringProperty(options={"SKIP_SAVE"})


class RotomemPreferences(bpy.types.AddonPreferences):
    """Where the engine is."""

    bl_idname = __package__

    engine: StringProperty(
        name="Engine",
        subtype="FILE_PATH",
        description="The Python that rotomem is installed in, or its environment's folder, or the rotomem command. "
        "Empty: ROTOMEM_PYTHON, then the PATH",
    )
    said: StringProperty(options={"SKIP_SAVE"})

    def draw(self, context):
        row = self.layout.row()
        row.prop(self, "engine")
        row.operator("rotomem.check", icon="CHECKMARK")
        if self.said:
            panel_text(self.layout, self.said)


def preferences(context):
    return context.preferences.addons[__package__].preferences


def panel_text(layout, text, width=60):
    """A text on as many lines as it needs."""
    import textwrap

    column = layout.column(align=True)
    for line in textwrap.wrap(text, width):
        column.label(text=line)


_CLASSES = (RotomemObject, RotomemScene, RotomemPreferences)


def register():
    for cls in _CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.rotomem = PointerProperty(type=RotomemScene)


def unregister():
    del bpy.types.Scene.rotomem
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
