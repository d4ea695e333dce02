-- Two roles: onerow_service, which has just what the service needs, and onerow_owner for `python -m db`.
-- A script for psql, run once `python -m db init` has made the tables, and again after a new version's:
--     psql --file sql/roles.sql postgresql://...
-- as a superuser, or as the owner of database and tables, who may create roles. Neither role has a
-- password: in psql, \password onerow_service asks for one and sends its hash.
\set ON_ERROR_STOP on

-- ALTER TABLE waits for whoever uses the table, and everyone else waits behind it: requests do so for
-- up to 2.5 seconds. Should it give up, run the script again.
SET lock_timeout = '1500ms';
SET client_min_messages = warning;

-- The schema that has the tables, and from here on no other, for others may make things there that
-- run with the rights of whoever runs this. In it init, guard and enforce make tables, indexes and
-- functions.
SELECT relnamespace::pg_catalog.regnamespace AS schema
FROM pg_catalog.pg_class
WHERE oid OPERATOR(pg_catalog.=) 'departments'::pg_catalog.regclass::pg_catalog.oid
\gset
SET search_path = :schema, pg_temp;

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

GRANT USAGE ON SCHEMA :schema TO onerow_service, onerow_owner;
GRANT CREATE ON SCHEMA :schema TO onerow_owner;

-- What changes a table is its owner's: indexes, constraints, triggers. Who was it until now has no
-- right left: where another application writes as that role, grant it what it needs.
ALTER TABLE departments OWNER TO onerow_owner;
ALTER TABLE employees OWNER TO onerow_owner;
ALTER TABLE merged OWNER TO onerow_owner;

-- The guard, if it is on, runs with its owner's rights, so that writers need none on its locks.
ALTER TABLE IF EXISTS departments_guard_locks OWNER TO onerow_owner;
ALTER TABLE IF EXISTS employees_guard_locks OWNER TO onerow_owner;
SELECT 'ALTER FUNCTION ' || oid::regprocedure::text || ' OWNER TO onerow_owner'
FROM pg_proc
WHERE oid IN (
    to_regprocedure('departments_guard()'::text)::oid,
    to_regprocedure('employees_guard()'::text)::oid
)
\gexec

REVOKE ALL ON departments, employees, merged FROM onerow_service;
GRANT SELECT, INSERT, DELETE ON departments, employees TO onerow_service;
GRANT SELECT ON merged TO onerow_service;

-- The pages under /inspect need no more. Of other roles' sessions they show neither state nor
-- statement; who wants those, and lets the callers of the service see the values in them:
-- GRANT pg_read_all_stats TO onerow_service;
