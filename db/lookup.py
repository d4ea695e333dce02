"""Doctor's look at the lookup: by which index it goes, and so what it locks."""

from collections.abc import Iterator

import psycopg

from db.adoption import KEYS
from db.change import Connection, ask
from db.check import ADVICE, FAIL, OK, Check
from db.kind import some
from db.pool import Row
from db.queries import QUERIES
from db.shortcomings import one_line


def lookup(connection: Connection, resource: str) -> Iterator[Check]:
    """Yield what there is to say of the lookup's index, on each partition and child."""
    subject = f"{resource} lookup"
    name = f"{resource}_lookup"
    build = one_line(f"{resource}/lookup")
    kinds = ask(connection, "adoption/kind", resource)
    concurrently = " CONCURRENTLY"
    if kinds and kinds[0]["kind"] == "p":  # whose partitions' indexes are built with its own
        concurrently = ""
        build = build.replace(" CONCURRENTLY", "")
    index = ask(connection, "adoption/doctor/index", name)
    if index and not index[0]["valid"]:
        detail = f"its index is INVALID: DROP INDEX{concurrently} {name}; {build}"
        yield Check(FAIL, subject, detail)
        return
    try:
        scans = list(lookup_scans(connection, resource))
    except psycopg.Error as error:
        yield Check(FAIL, subject, str(error).partition("\n")[0])
        return
    served = [scan for scan in scans if "hash_record_extended" in scan.get("Index Cond", "")]
    others = [scan for scan in scans if scan not in served]
    if kinds and kinds[0]["kind"] == "r" and kinds[0]["children"]:
        # The service writes to none of them: its creators do not conflict there.
        children = [scan for scan in others if scan.get("Relation Name") != resource]
        others = [scan for scan in others if scan not in children]
        if children:
            tables = some([scan.get("Relation Name", "?") for scan in children])
            detail = f"each request reads the whole of {tables}: build this index there, too"
            yield Check(ADVICE, subject, detail)
    for scan in others[:1]:
        # An index of that name is not to be dropped unseen: row security, too, can do this.
        remedy = f"{name} does not serve it, see schema.sql" if index else build
        detail = f"a {scan['Node Type']} locks all keys, so that all creators conflict: {remedy}"
        yield Check(FAIL, subject, detail)
    if not scans:
        detail = "it finds nothing: row security lets this role see no row"
        yield Check(FAIL, subject, detail)
    elif not others:
        indexes = some([scan.get("Index Name", "?") for scan in served])
        yield Check(OK, subject, f"{served[0]['Node Type']} of {indexes}")


def lookup_scans(connection: Connection, resource: str) -> Iterator[Row]:
    """Yield the nodes of the lookup's plan that read the table or its indexes."""
    key = [0 if column.endswith("_id") else "" for column in KEYS[resource]]
    explain = b"EXPLAIN (FORMAT JSON)\n" + QUERIES[f"{resource}/select"]
    (explained,) = connection.execute(explain, key)
    nodes = [explained["QUERY PLAN"][0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        # A bitmap's own scan of the table reads what its index scans have found.
        if node["Node Type"].endswith("Scan") and node["Node Type"] not in (
            "CTE Scan",
            "Bitmap Heap Scan",
        ):
            yield node
