-- Makes the ids in merged text. No row.
ALTER TABLE merged
    ALTER id TYPE text,
    ALTER kept TYPE text;
