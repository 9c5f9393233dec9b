-- Track the key masks of the clip under the playhead; plate and mattes become a Fusion composition on the clip.
require("rotomem_resolve").run("comp")
