-- The seconds since this transaction began: age.
SELECT extract(epoch FROM clock_timestamp() - transaction_timestamp())::double precision AS age;
