"""An imagined host: documents, masks an artist drew, an event loop. It stands for `import nuke` or `import bpy`."""

import os


class Document:
    """What is open. `shapes` are the artist's: object -> frame -> the file the host would render its mask to."""

    def __init__(self, plate, shapes, folder):
        self.plate = plate
        self.shapes = shapes
        self.folder = folder
        self.layers = {}
        self.timers = []

    def render_shape(self, name, frame, path):
        """Write the mask as the host draws it on that frame."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(self.shapes[name][frame], "rb") as drawn, open(path, "wb") as file:
            file.write(drawn.read())

    def load_layer(self, name, channel, files):
        """Show a sequence: frame -> file."""
        self.layers[name] = channel, dict(files)

    def loop(self):
        """One turn of the host's event loop."""
        for timer in list(self.timers):
            timer()
