-- Makes two roles: onerow_service, which has just the rights that the service needs, and onerow_owner,
-- which owns the tables, for `python -m db`. This is a script for psql. `python -m db roles` writes it,
-- behind two lines that name the tables:
--     python -m db roles | psql postgresql://...
-- Run it after the first `python -m db init`, and again after that of a new version and for each new
-- resource. It needs a superuser, or the owner of database and tables who may create roles. Neither
-- role has a password: \password onerow_service in psql asks for one, and sends its hash.
\set ON_ERROR_STOP on

-- ALTER TABLE waits for all who use the table, and everyone else waits behind it. A request gives up
-- after 2.5 seconds, so the script gives up before. Then run it again.
SET lock_timeout = '1500ms';
SET client_min_messages = warning;

-- The schemas of the tables become the search_path. In any other schema somebody may have made
-- functions that would run here with the rights of whoever runs this. In these schemas init, guard and
-- enforce make tables, indexes and functions.
WITH named AS (
    SELECT key AS name, value::pg_catalog.regclass::pg_catalog.oid AS oid
    FROM pg_catalog.jsonb_each_text(:'resources'::pg_catalog.jsonb)
    UNION ALL
    SELECT NULL, 'merged'::pg_catalog.regclass::pg_catalog.oid
)
SELECT
    pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(nspname), ', ') AS schemas,
    pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
            'name', name,
            'schema', pg_catalog.quote_ident(nspname),
            'sql_name', pg_catalog.format('%I.%I', nspname, relname)
        )
    ) AS tables
FROM named
INNER JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) named.oid
INNER JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
\gset
-- The service may read the tables whose rows --keep counts, and no more. They keep their owner.
SELECT
    coalesce(
        pg_catalog.jsonb_agg(
            pg_catalog.jsonb_build_object(
                'schema', pg_catalog.quote_ident(nspname),
                'sql_name', pg_catalog.format('%I.%I', nspname, relname)
            )
        ),
        '[]'
    ) AS counted
FROM pg_catalog.jsonb_array_elements_text(:'counted'::pg_catalog.jsonb) AS counted (name)
INNER JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) name::pg_catalog.regclass::pg_catalog.oid
INNER JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
\gset
SET search_path = :schemas, pg_temp;

SELECT 'CREATE ROLE onerow_service LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'onerow_service')
\gexec

SELECT 'CREATE ROLE onerow_owner LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'onerow_owner')
\gexec

-- A role that is no superuser must be a member of the new owner to give it tables.
SELECT 'GRANT onerow_owner TO CURRENT_USER'
WHERE NOT pg_has_role('onerow_owner'::name, 'USAGE'::text)
\gexec

GRANT CONNECT ON DATABASE :"DBNAME" TO onerow_service, onerow_owner;

GRANT USAGE ON SCHEMA :schemas TO onerow_service, onerow_owner;
GRANT CREATE ON SCHEMA :schemas TO onerow_owner;

-- The files name the types of columns with their schemas, and what keys, conditions and defaults are made
-- of. PostgreSQL has a record of what else tables, their indexes and their defaults depend on. What a domain
-- depends on is its type.
WITH RECURSIVE needed AS (
    SELECT refclassid, refobjid
    FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (sql_name text)
    CROSS JOIN LATERAL to_regclass(sql_name) AS served
    INNER JOIN pg_depend
        ON classid = 'pg_class'::regclass::oid
       AND (objid = served::oid OR objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = served::oid))
        OR classid = 'pg_attrdef'::regclass::oid
       AND objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = served::oid)
    UNION
    SELECT pg_depend.refclassid, pg_depend.refobjid
    FROM needed
    INNER JOIN pg_depend ON classid = needed.refclassid AND objid = needed.refobjid
    WHERE classid = 'pg_type'::regclass::oid
)
SELECT DISTINCT pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %s', schema, role)
FROM needed
CROSS JOIN LATERAL pg_identify_object(refclassid, refobjid, 0) AS object
CROSS JOIN (VALUES ('onerow_service'), ('onerow_owner')) AS roles (role)
WHERE object.type IN ('type', 'function', 'operator', 'collation', 'sequence')
  AND NOT has_schema_privilege(role::name, to_regnamespace(schema)::oid, 'USAGE'::text)
\gexec

-- Only a table's owner may change its indexes, constraints and triggers. The former owner has no right
-- left: if another application writes as that role, grant it what it needs.
SELECT pg_catalog.format('ALTER TABLE %s OWNER TO onerow_owner', sql_name)
FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (sql_name text)
\gexec

-- The guard, if it is on, belongs to the owner, too. It runs with its owner's rights, so that writers
-- need none on its locks.
SELECT pg_catalog.format('ALTER TABLE IF EXISTS %s.%I OWNER TO onerow_owner', schema, name || '_guard_locks')
FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (name text, schema text)
WHERE name IS NOT NULL
\gexec
SELECT 'ALTER FUNCTION ' || oid::regprocedure::text || ' OWNER TO onerow_owner'
FROM pg_proc
WHERE oid IN (
    SELECT to_regprocedure(pg_catalog.format('%s.%I()', schema, name || '_guard'))::oid
    FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (name text, schema text)
    WHERE name IS NOT NULL
)
\gexec

SELECT pg_catalog.format('REVOKE ALL ON %s FROM onerow_service', sql_name)
FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (sql_name text)
\gexec
SELECT pg_catalog.format('GRANT SELECT, INSERT, DELETE ON %s TO onerow_service', sql_name)
FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (name text, sql_name text)
WHERE name IS NOT NULL
\gexec
SELECT
    pg_catalog.format('GRANT USAGE ON SCHEMA %s TO onerow_service', schema),
    pg_catalog.format('GRANT SELECT ON %s TO onerow_service', sql_name)
FROM pg_catalog.jsonb_to_recordset(:'counted'::jsonb) AS tables (schema text, sql_name text)
\gexec
-- An insert needs a right on a sequence that is a column's default. GENERATED AS IDENTITY needs none.
SELECT DISTINCT 'GRANT USAGE ON SEQUENCE ' || seqrelid::regclass::text || ' TO onerow_service'
FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (name text, sql_name text)
INNER JOIN pg_attrdef ON adrelid = to_regclass(sql_name)::oid
INNER JOIN pg_depend
    ON classid = 'pg_attrdef'::regclass::oid
   AND objid = pg_attrdef.oid
   AND refclassid = 'pg_class'::regclass::oid
INNER JOIN pg_sequence ON seqrelid = refobjid
WHERE name IS NOT NULL
\gexec
GRANT SELECT ON merged TO onerow_service;

-- The pages under /inspect need no further right. They do not show the state and the statements of
-- other roles' sessions. This shows them, with the values in them, to the callers of the service:
-- GRANT pg_read_all_stats TO onerow_service;
