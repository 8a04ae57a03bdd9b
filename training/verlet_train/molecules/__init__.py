"""Organic molecules: enumerated from fragments, embedded in three dimensions, kept in one structures file.

`library` reads and writes that file, `own` reads others: neither needs RDKit. `enumeration` and `conformers`, which make
the file, do.
"""
