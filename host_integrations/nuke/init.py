"""rotomem in Nuke: found by NUKE_PATH or nuke.pluginAddPath. Nuke puts this folder on sys.path; that is all it takes.

Terminal sessions: `import rotomem_nuke; rotomem_nuke.track(nuke.toNode("Rotomem1"))`.
"""
