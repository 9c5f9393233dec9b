"""The engine: one shot through a model and its memories."""
