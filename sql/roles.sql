-- Two roles: onerow_service, which has just what the service needs, and onerow_owner for `python -m db`.
-- A script for psql, run once `python -m db init` has been, and again after a new version's, or for a
-- new resource:
--     python -m db roles | psql postgresql://...
-- which writes this file behind a line that says which tables there are. As a superuser, or as the
-- owner of database and tables, who may create roles. Neither role has a password: in psql,
-- \password onerow_service asks for one and sends its hash.
\set ON_ERROR_STOP on

-- ALTER TABLE waits for whoever uses the table, and everyone else waits behind it: requests do so for
-- up to 2.5 seconds. Should it give up, run the script again.
SET lock_timeout = '1500ms';
SET client_min_messages = warning;

-- The schemas that have the tables, and from here on no other, for others may make things there that
-- run with the rights of whoever runs this. In them init, guard and enforce make tables, indexes and
-- functions.
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
SET search_path = :schemas, pg_temp;

SELECT 'CREATE ROLE onerow_service LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'onerow_service')
\gexec

SELECT 'CREATE ROLE onerow_owner LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'onerow_owner')
\gexec

-- Who is no superuser must be a member to give tables to the new owner.
SELECT 'GRANT onerow_owner TO CURRENT_USER'
WHERE NOT pg_has_role('onerow_owner'::name, 'USAGE'::text)
\gexec

GRANT CONNECT ON DATABASE :"DBNAME" TO onerow_service, onerow_owner;

GRANT USAGE ON SCHEMA :schemas TO onerow_service, onerow_owner;
GRANT CREATE ON SCHEMA :schemas TO onerow_owner;

-- What changes a table is its owner's: indexes, constraints, triggers. Who was it until now has no
-- right left: where another application writes as that role, grant it what it needs.
SELECT pg_catalog.format('ALTER TABLE %s OWNER TO onerow_owner', sql_name)
FROM pg_catalog.jsonb_to_recordset(:'tables'::jsonb) AS tables (sql_name text)
\gexec

-- The guard, if it is on, runs with its owner's rights, so that writers need none on its locks.
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
-- A column whose default is a sequence's next value; one that is GENERATED AS IDENTITY needs no right.
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

-- The pages under /inspect need no more. Of other roles' sessions they show neither state nor
-- statement; who wants those, and lets the callers of the service see the values in them:
-- GRANT pg_read_all_stats TO onerow_service;
