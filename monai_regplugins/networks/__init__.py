"""Networks: one file per box of a paper's figure in ``blocks``, assembly only in ``nets``."""
