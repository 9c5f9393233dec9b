"""The smallest whole adapter: keys out, a job, progress, cancel, mattes in. Copy it and replace what `document` does.

`client.py` lies beside it; `rotomem.host.install.assemble` puts it there. Nothing else of rotomem is imported.
"""

import os

from .client import Engine, EngineError, find_engine


class Panel:
    """What the artist sees: `text`, a bar from 0 to 1, and whether Track or Cancel is the button.

    state   "idle", "running", "done", "cancelled" or "error"
    """

    def __init__(self, document, preference=""):
        self.document = document
        self.preference = preference  # the Python that rotomem is installed in, as the artist chose it
        self.state, self.text, self.bar = "idle", "", 0.0
        self._engine = self._job = None
        self._files = {}

    def track(self, **options):
        """The Track button. Returns at once; the host's timer does the rest."""
        if self.state == "running":
            return
        self.bar, self._files = 0.0, {}
        try:
            masks = self._keys()
            self._start()
            self._job = self._engine.submit(
                "track",
                plate=self.document.plate,
                masks=masks,
                out=os.path.join(self.document.folder, "mattes"),
                options=options,
            )
        except (EngineError, OSError) as problem:
            self.state, self.text = "error", str(problem)
            return
        self.state, self.text = "running", "starting"
        self.document.timers.append(self._look)

    def cancel(self):
        """The Cancel button. The frame begun is finished first, so that every file is whole."""
        if self.state == "running":
            self._engine.cancel(self._job)

    def close(self):
        """When the host quits."""
        if self._engine is not None:
            self._engine.close()

    def _start(self):
        """The engine stays warm between jobs, and is started again where it died or another one was chosen."""
        command = find_engine(self.preference)
        if self._engine is not None and (not self._engine.alive or self._engine.command != command):
            self._engine.close(0)
            self._engine = None
        if self._engine is None:
            self._engine = Engine(command).start()

    def _keys(self):
        """Every mask of every object as a file, under a name of ours: an object's own may not suit the disk."""
        masks = []
        for number, (name, shapes) in enumerate(self.document.shapes.items(), 1):
            for frame in shapes:
                path = os.path.join(self.document.folder, "keys", f"object{number}.{frame}.exr")
                self.document.render_shape(name, frame, path)
                masks.append(f"{name}@{frame}={path}")
        return masks

    def _look(self):
        """The host's timer, in its main thread: never waits."""
        for event in self._engine.poll():
            if event.get("id") == self._job.id and event.get("event") == "progress" and event.get("files"):
                self._files[event["frame"]] = event["files"][0]
        self.text = self._job.message
        if self._job.last is not None:
            self.bar = self._job.last["done"] / max(self._job.last["total"], 1)
        if not self._job.ended:
            return
        self.document.timers.remove(self._look)
        self.state = self._job.state
        if self.state == "done":
            for name, layer in self._job.result["report"]["objects"].items():
                self.document.load_layer(name, layer + ".A" if layer else "A", self._files)
            self.bar, self.text = 1.0, f"{len(self._files)} mattes"
        elif self.state == "cancelled":
            self.text = "Cancelled. Mattes made so far are whole; track again to go on."
