-- Stop the run of the clip under the playhead, where there is no window with a button.
print("rotomem: " .. select(2, pcall(require("rotomem_resolve").cancel, resolve or Resolve and Resolve())))
