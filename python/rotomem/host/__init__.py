"""Between hosts and the engine: the worker process, the client that hosts carry, what both say to each other."""
