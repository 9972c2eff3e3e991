"""Pure parts: what is learnt from examples, which passages fit, what a model is shown."""
