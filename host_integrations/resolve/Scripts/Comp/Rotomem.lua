-- Select the plate's Loader and a mask tool: its shape on the current frame is tracked, Loader and MatteControl arrive.
require("rotomem_fusion").run()
