"""What `loop` and `training` are made of: checks, units, orders of examples, compiled programs."""
