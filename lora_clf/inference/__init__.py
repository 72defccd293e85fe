"""Running a model well: device, precision, batches of like length, logits in the order of the texts."""
