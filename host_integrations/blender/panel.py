# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist sees, in the Movie Clip Editor and the Image Editor."""

import bpy

from .host import tree_of
from .settings import panel_text


class ROTOMEM_UL_objects(bpy.types.UIList):
    def draw_item(self, context, layout, data, item, icon, active_data, active_property, index):
        layout.prop(item, "name", text="", emboss=False, icon="MOD_MASK" if item.source == "MASK" else "IMAGE_DATA")


class _Panel:
    bl_region_type = "UI"
    bl_category = "rotomem"
    bl_label = "rotomem"

    def draw(self, context):
        layout, settings = self.layout, context.scene.rotomem
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.template_ID(settings, "clip", open="clip.open")
        if settings.clip is None:
            layout.template_ID(settings, "image", open="image.open")

        row = layout.row()
        row.template_list("ROTOMEM_UL_objects", "", settings, "objects", settings, "active", rows=2)
        column = row.column(align=True)
        column.operator("rotomem.object_add", icon="ADD", text="")
        column.operator("rotomem.object_remove", icon="REMOVE", text="")
        if settings.objects:
            thing = settings.objects[min(settings.active, len(settings.objects) - 1)]
            layout.prop(thing, "source")
            tree = tree_of(context.scene)
            if thing.source == "NODE" and tree is not None:
                layout.prop_search(thing, "node", tree, "nodes")
            else:
                field = {"MASK": "mask", "IMAGE": "image", "FILE": "path", "NODE": "node"}[thing.source]
                layout.prop(thing, field)
            layout.prop(thing, "frames")

        column = layout.column()
        column.prop(settings, "whole")
        if not settings.whole:
            row = column.row(align=True)
            row.prop(settings, "first")
            row.prop(settings, "last")
        column.prop(settings, "folder")
        column.prop(settings, "model")
        column.prop(settings, "size")
        column.prop(settings, "edge")
        column.prop(settings, "wire")
        column.prop(settings, "crypto")

        if settings.running:
            if hasattr(layout, "progress"):  # 4.0
                layout.progress(factor=settings.progress, text=settings.message)
            else:
                layout.label(text=f"{settings.progress:.0%}  {settings.message}")
            layout.operator("rotomem.cancel", icon="CANCEL")
            return
        row = layout.row(align=True)
        row.scale_y = 1.4
        row.operator("rotomem.track", text="", icon="TRACKING_BACKWARDS").direction = "backward"
        row.operator("rotomem.track", text="Track").direction = "both"
        row.operator("rotomem.track", text="", icon="TRACKING_FORWARDS").direction = "forward"
        row = layout.row(align=True)
        row.operator("rotomem.masks", icon="MOD_MASK")
        row.prop(settings, "tolerance", text="px")
        if settings.message:
            panel_text(layout, settings.message, 44)


class ROTOMEM_PT_clip(_Panel, bpy.types.Panel):
    bl_idname = "ROTOMEM_PT_clip"
    bl_space_type = "CLIP_EDITOR"


class ROTOMEM_PT_image(_Panel, bpy.types.Panel):
    bl_idname = "ROTOMEM_PT_image"
    bl_space_type = "IMAGE_EDITOR"


_CLASSES = (ROTOMEM_UL_objects, ROTOMEM_PT_clip, ROTOMEM_PT_image)


def register():
    for cls in _CLASSES:
        bpy.utils.register_class(cls)


def unregister():
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
