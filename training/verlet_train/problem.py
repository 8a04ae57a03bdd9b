"""What a user is told."""


class InputError(ValueError):
    """What a user wrote or gave cannot be used: one sentence that says where, what, and what to do."""
