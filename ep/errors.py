"""The one exception of this package. It is raised at the boundary and caught once, in an example's `main`."""


class EPError(Exception):
    """One sentence for the user: what was wrong, what was expected, what to do.

    exit_code: 2 for bad input (nothing has been done yet), 1 for a failure while running.
    """

    def __init__(self, sentence: str, exit_code: int = 2) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence))  # of names: anything may be in one
        self.exit_code = exit_code
