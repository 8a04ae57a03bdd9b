"""Organic molecules: enumerated from fragments, embedded in three dimensions, kept in one structures file.

`library` reads and writes that file and needs NumPy only; `enumeration` and `conformers` make it and need RDKit.
"""
