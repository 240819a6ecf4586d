"""How a column is compared with a number to make a label, as the job file writes it and as kernels count it."""

GREATER, GREATER_EQUAL, LESS, LESS_EQUAL, EQUAL, NOT_EQUAL, IS_ONE = 0, 1, 2, 3, 4, 5, 6

SIGNS = {">": GREATER, ">=": GREATER_EQUAL, "<": LESS, "<=": LESS_EQUAL, "==": EQUAL, "!=": NOT_EQUAL}
