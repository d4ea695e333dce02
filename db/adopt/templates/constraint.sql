-- Makes the unique index of {{ name }} a constraint. No row.
ALTER TABLE {{ table }}
    ADD CONSTRAINT {{ quoted(name ~ "_key") }} UNIQUE USING INDEX {{ quoted(name ~ "_key") }};
