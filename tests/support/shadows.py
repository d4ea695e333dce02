"""Functions and operators that one who may CREATE in the tables' schema puts beside PostgreSQL's.

PostgreSQL takes, of all on the search_path, the one whose arguments' types fit best. So there is
one here for each name that the SQL files use and for each combination of types; it raises an error.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import psycopg
import psycopg.sql
from psycopg.conninfo import make_conninfo

# Of the files' columns, parameters and literals, of PostgreSQL's own catalogs, and of any.
TYPES = [
    *("boolean", "name", "smallint", "integer", "bigint", "numeric"),
    *("text", "varchar", "oid", "regclass", "date", "timestamp", "timestamptz", "pg_lsn"),
    *("jsonb", "text[]", "bigint[]", "record", "public.departments", "public.employees"),
    *("anyelement", "anycompatible"),
]
OPERANDS = [
    *TYPES,
    *('"char"', "double precision", "regprocedure", "regproc"),
    *("interval", "name[]", "smallint[]", "int2vector", "anyarray"),
]

OPERATORS = ["=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "||", "->", "->>"]

CREATE = """
DO $do$
DECLARE
    body text := $$ RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''a shadow''; END'$$;
    name text;
    one text;
    other text;
BEGIN
    FOREACH name IN ARRAY %(names)s::text[] LOOP
        EXECUTE pg_catalog.format('CREATE FUNCTION public.%%I() %%s', name, body);
        EXECUTE pg_catalog.format(
            'CREATE FUNCTION public.%%I(text, text, boolean) %%s', name, body);
    END LOOP;
    FOREACH one IN ARRAY %(types)s::text[] LOOP
        FOREACH name IN ARRAY %(names)s::text[] LOOP
            EXECUTE pg_catalog.format('CREATE FUNCTION public.%%I(%%s) %%s', name, one, body);
            CONTINUE WHEN one LIKE 'any%%' OR one LIKE '%%[]' OR one = 'record';
            EXECUTE pg_catalog.format(
                'CREATE FUNCTION public.%%I(text, text, VARIADIC %%s[]) %%s', name, one, body);
        END LOOP;
        FOREACH other IN ARRAY %(types)s::text[] LOOP
            FOREACH name IN ARRAY %(names)s::text[] LOOP
                EXECUTE pg_catalog.format(
                    'CREATE FUNCTION public.%%I(%%s, %%s) %%s', name, one, other, body);
            END LOOP;
        END LOOP;
    END LOOP;
    FOREACH one IN ARRAY %(operands)s::text[] LOOP
        EXECUTE pg_catalog.format('CREATE FUNCTION public.a_shadow(%%s) %%s', one, body);
        EXECUTE pg_catalog.format(
            'CREATE OPERATOR public.- (RIGHTARG = %%s, FUNCTION = public.a_shadow)', one);
        FOREACH other IN ARRAY %(operands)s::text[] LOOP
            EXECUTE pg_catalog.format(
                'CREATE FUNCTION public.a_shadow(%%s, %%s) %%s', one, other, body);
            FOREACH name IN ARRAY %(operators)s::text[] LOOP
                EXECUTE pg_catalog.format(
                    'CREATE OPERATOR public.%%s'
                    ' (LEFTARG = %%s, RIGHTARG = %%s, FUNCTION = public.a_shadow)',
                    name, one, other);
            END LOOP;
        END LOOP;
    END LOOP;
END $do$
"""


def unshadowed(database: str) -> str:
    """Return the URL for what the test itself asks."""
    return make_conninfo(database, options="-c search_path=pg_catalog,pg_temp")


def cast_shadows(database: str, files: list[Path], others: Sequence[str] = ()) -> None:
    """Make them, for the functions in these files, and for types that others have made, too."""
    text = "\n".join(file.read_text() for file in files)
    words = set(re.findall(r"([a-z_]+)\(", text))
    with psycopg.connect(unshadowed(database), cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SET check_function_bodies = off")
        found = connection.execute(
            "SELECT DISTINCT proname::text FROM pg_proc WHERE proname = ANY (%s)", [list(words)]
        ).fetchall()
        names = [name for (name,) in found]
        made_of = {
            "types": [*TYPES, *others],
            "operands": [*OPERANDS, *others],
            "operators": OPERATORS,
        }
        connection.execute(CREATE, {**made_of, "names": names})


# What stands before PostgreSQL's own only where its schema does not come first on the search_path.
BEFORE = """
CREATE DOMAIN public.text AS pg_catalog.text CHECK (pg_catalog.length(value) < 0);
CREATE DOMAIN public._text AS pg_catalog._text CHECK (value IS NULL);
CREATE DOMAIN public.jsonb AS pg_catalog.jsonb CHECK (value IS NULL);
CREATE DOMAIN public.oid AS pg_catalog.oid CHECK (value IS NULL);
CREATE DOMAIN public.regclass AS pg_catalog.regclass CHECK (value IS NULL);
CREATE DOMAIN public.regnamespace AS pg_catalog.regnamespace CHECK (value IS NULL);
CREATE VIEW public.pg_class AS SELECT 1 / 0 AS oid;
CREATE VIEW public.pg_namespace AS SELECT 1 / 0 AS oid;
CREATE VIEW public.pg_extension AS SELECT 1 / 0 AS oid
"""


def come_before(database: str) -> None:
    """Let what is in public come before PostgreSQL's own, and put types and tables there, too."""
    with psycopg.connect(unshadowed(database), autocommit=True) as connection:
        for statement in BEFORE.split(";"):
            connection.execute(statement.encode())
        name = psycopg.sql.Identifier(connection.info.dbname)
        order = psycopg.sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog")
        connection.execute(order.format(name))


def chosen(tree: str, shadows: set[int]) -> set[int]:
    """Return which of the shadows PostgreSQL has chosen, by what debug_print_parse tells."""
    oids = re.findall(r":(?:funcid|opno|opfuncid|aggfnoid|winfnoid|eqop|sortop) (\d+)", tree)
    return shadows & {int(oid) for oid in oids}
