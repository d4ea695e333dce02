-- Drops an INVALID unique index of {{ name }}. No row.
DROP INDEX CONCURRENTLY {{ prefix }}{{ quoted(name ~ "_key") }};
