"""Functions and operators that another role has made beside PostgreSQL's, in the tables' schema.

PostgreSQL takes the one on the search_path whose argument types fit best. So there is a shadow here
for each name that the SQL files use and each combination of types, and it raises an error.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import psycopg
import psycopg.sql
from psycopg.conninfo import make_conninfo

# The types of the files' columns, parameters and literals, those of PostgreSQL's catalogs, and the
# types that fit any.
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
    """Return a URL for the test's own statements, which see no shadows."""
    return make_conninfo(database, options="-c search_path=pg_catalog,pg_temp")


def cast_shadows(database: str, files: list[Path], others: Sequence[str] = ()) -> None:
    """Make shadows of the functions in these files, for TYPES and for types of others."""
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


# These hide PostgreSQL's own only where another schema comes before pg_catalog on the search_path.
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
    """Put public before pg_catalog on the search_path, and BEFORE into public."""
    with psycopg.connect(unshadowed(database), autocommit=True) as connection:
        for statement in BEFORE.split(";"):
            connection.execute(statement.encode())
        name = psycopg.sql.Identifier(connection.info.dbname)
        order = psycopg.sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog")
        connection.execute(order.format(name))


def chosen(tree: str, shadows: set[int]) -> set[int]:
    """Return which shadows are in the parse trees that debug_print_parse has told."""
    oids = re.findall(r":(?:funcid|opno|opfuncid|aggfnoid|winfnoid|eqop|sortop) (\d+)", tree)
    return shadows & {int(oid) for oid in oids}
