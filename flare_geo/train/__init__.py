"""Training with Lightning: module, data module, callbacks, optimiser. Needs the extra `train`."""
