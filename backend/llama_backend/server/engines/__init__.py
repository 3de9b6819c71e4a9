"""Engine processes under supervision: one for each loaded model."""
