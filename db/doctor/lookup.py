"""Doctor's checks of the lookup: which index its plan uses decides what it locks."""

import re
from collections.abc import Iterator

import psycopg

from db.doctor.check import ADVICE, FAIL, OK, Check
from db.doctor.definition import indexes
from db.pipeline import Row
from db.queries import QUERIES, explained, one_line
from db.resources import Resource
from db.way_out.change import Session, ask
from db.way_out.kind import some

JSON = b"(FORMAT JSON)"

# The alias of the tables whose rows --keep counts, with a number for each partition. They are read
# only where a key has several rows, and then no row is made.
REFERRING = re.compile(r"referring_rows(_\d+)?")


def lookup(connection: Session, resource: Resource) -> Iterator[Check]:
    """Yield what is wrong with the lookup's index, on partitions and children too, or ok."""
    subject = f"{resource.name} lookup"
    kinds = ask(connection, "way_out/kind", resource.table)
    partitioned = bool(kinds) and kinds[0]["kind"] == "p"
    index, _ = indexes(connection, resource, "lookup")
    if index and not index["valid"]:
        rebuild = build_lookup(resource, partitioned=partitioned, instead_of=index["sql_name"])
        yield Check(FAIL, subject, f"its index is INVALID: {rebuild}")
        return
    try:
        statement, values = explained(resource.name, "select", JSON)
        found = scans(connection.execute(statement, values).fetchall())
    except psycopg.Error as error:
        yield Check(FAIL, subject, str(error).partition("\n")[0])
        return
    served = [scan for scan in found if is_served(scan)]
    others = [scan for scan in found if scan not in served]
    if kinds and kinds[0]["kind"] == "r" and kinds[0]["children"]:
        # The service writes to no child table, so its creators do not conflict there.
        children = [scan for scan in others if scan.get("Relation Name") != kinds[0]["name"]]
        others = [scan for scan in others if scan not in children]
        if children:
            tables = some([scan.get("Relation Name", "?") for scan in children])
            detail = f"each request reads the whole of {tables}: build this index there, too"
            yield Check(ADVICE, subject, detail)
    for scan in others[:1]:
        # The advice is not to drop an index of that name, because row security can cause this, too.
        remedy = build_lookup(resource, partitioned=partitioned)
        if index:
            remedy = f"{index['sql_name']} does not serve it, see `python -m db init`"
        detail = f"a {scan['Node Type']} locks all keys, so that all creators conflict: {remedy}"
        yield Check(FAIL, subject, detail)
    if not found:
        detail = "it finds nothing: row security lets this role see no row"
        yield Check(FAIL, subject, detail)
    elif not others:
        names = some([scan.get("Index Name", "?") for scan in served])
        yield Check(OK, subject, f"{served[0]['Node Type']} of {names}")


def build_lookup(resource: Resource, *, partitioned: bool, instead_of: str = "") -> str:
    """Return the statement of lookup.sql on one line, or that the file is missing.

    `partitioned`: the table is. `instead_of`, an index's name in SQL, is dropped before.
    """
    query = f"{resource.name}/lookup"
    build = one_line(QUERIES[query]) if query in QUERIES else f"{query}.sql is missing"
    if instead_of:
        build = f"DROP INDEX CONCURRENTLY {instead_of}; {build}"
    # A partitioned table takes no index CONCURRENTLY.
    return build.replace("INDEX CONCURRENTLY ", "INDEX ") if partitioned else build


def is_served(scan: Row) -> bool:
    """Tell whether a scan finds the rows by the hash of the whole key."""
    return re.search(r"\bhash\w+extended\(", scan.get("Index Cond", "")) is not None


def scans(plan: list[Row]) -> list[Row]:
    """Return the nodes of a lookup's plan, from EXPLAIN, that read the table or its indexes."""
    found = []
    nodes = [plan[0]["QUERY PLAN"][0]["Plan"]]
    while nodes:
        node = nodes.pop()
        if REFERRING.fullmatch(node.get("Alias", "")):
            continue
        nodes += node.get("Plans", [])
        # A Bitmap Heap Scan reads only what the index scans below it have found.
        if node["Node Type"].endswith("Scan") and node["Node Type"] not in (
            "CTE Scan",
            "Bitmap Heap Scan",
        ):
            found.append(node)
    return found
