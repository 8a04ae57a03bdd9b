"""Makes a verlet force field: labels from a teacher, a PaiNN network trained on them, and the exported model.

Units everywhere: Å, eV, fs, u (atomic mass unit), K.
"""
