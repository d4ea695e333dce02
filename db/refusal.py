"""Tells the errors by which the database refuses a client's input from the server's own faults.

The SQLSTATE decides (PostgreSQL's manual, appendix A). A fault is what no input can cause: a
sequence at its end, a trigger that calls a missing function, a full disk.
"""

import psycopg

# Classes of refusals: the data (22), the constraints (23), a view's WITH CHECK OPTION (44), a
# trigger that raises an error (09, P0), or that finds no case (20) or not just one row (21, P0) for
# what was sent.
REFUSALS = {"09", "20", "21", "22", "23", "44", "P0"}

# Refusals in other classes: an error of a trigger in Perl or Python, and a value too long for an
# index.
REFUSED = {"38000", "54000"}

# A fault in one of the classes of refusals: a sequence is at its end.
NO_REFUSALS = {"2200H"}


def is_refusal(error: Exception) -> bool:
    """Tell whether a constraint, a trigger or a column's type of the table refuses the input."""
    if not isinstance(error, psycopg.DatabaseError) or error.sqlstate is None:
        return False
    if error.sqlstate in NO_REFUSALS or is_taken_id(error):
        return False
    return (
        error.sqlstate[:2] in REFUSALS
        or error.sqlstate in REFUSED
        # psycopg has no subclass for an SQLSTATE that a trigger has made up.
        or type(error) is psycopg.DatabaseError
    )


def is_taken_id(error: psycopg.DatabaseError) -> bool:
    """Tell whether another row has the new row's id already.

    A sequence gives such ids out when rows were inserted with ids of their own.
    """
    if not isinstance(error, psycopg.errors.UniqueViolation):
        return False
    # The detail is "Key (id)=(7) already exists.", and only its first part is safe to read: what
    # follows "=" may be the client's own words. A role that may not read the columns gets no
    # detail, and then the constraint's default name must do.
    if detail := error.diag.message_detail:
        columns = detail.partition("(")[2].partition(")=(")[0]
        return "id" in columns.split(", ")
    return error.diag.constraint_name == f"{error.diag.table_name}_pkey"
