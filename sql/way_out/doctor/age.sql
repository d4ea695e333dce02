-- How long ago this transaction began, in seconds: age.
SELECT extract(epoch FROM clock_timestamp() - transaction_timestamp())::double precision AS age;
