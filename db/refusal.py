"""Which errors of the database are a "no" to what the client sent, and which the server's fault.

By SQLSTATE, of the appendix of PostgreSQL's manual. What no client's input can cause, as a sequence
at its end, a trigger that calls a function that is not there, or a full disk, is the server's.
"""

import psycopg

# Classes: the data, the constraints, a view's WITH CHECK OPTION, a trigger that raises (P0, 09), or
# that finds no case or not just one row for what was sent (20, 21, P0).
REFUSALS = {"09", "20", "21", "22", "23", "44", "P0"}

# In other classes: what a trigger in Perl or Python raises; a value too long for an index.
REFUSED = {"38000", "54000"}

# In those classes: a sequence is at its end.
NO_REFUSALS = {"2200H"}


def is_refusal(error: Exception) -> bool:
    """Tell whether someone else's constraint, trigger or column's type says no to the input."""
    if not isinstance(error, psycopg.DatabaseError) or error.sqlstate is None:
        return False
    if error.sqlstate in NO_REFUSALS or is_taken_id(error):
        return False
    return (
        error.sqlstate[:2] in REFUSALS
        or error.sqlstate in REFUSED
        # A trigger's own SQLSTATE, of a class that PostgreSQL does not have.
        or type(error) is psycopg.DatabaseError
    )


def is_taken_id(error: psycopg.DatabaseError) -> bool:
    """Tell whether another row has the new row's id, as where the ids' sequence is behind."""
    if not isinstance(error, psycopg.errors.UniqueViolation):
        return False
    # "Key (id)=(7) already exists.", whatever the constraint is called. What follows "=" may be the
    # client's own words. There is no detail for a role that may not read the columns.
    if detail := error.diag.message_detail:
        columns = detail.partition("(")[2].partition(")=(")[0]
        return "id" in columns.split(", ")
    return error.diag.constraint_name == f"{error.diag.table_name}_pkey"
