-- Track the key masks of the clip under the playhead; the mattes become clip mattes of the Color page.
require("rotomem_resolve").run("matte")
