"""The service with time limits of a second: `python -m tests.support.impatient`."""

import web.http_connection
import web.serving

# The workers import this module, too, so that these lines set their limits as well.
web.http_connection.HEAD_TIMEOUT = web.http_connection.READ_TIMEOUT = web.http_connection.LINGER = 1
web.http_connection.CHECK = 0.1
web.serving.KEEP_ALIVE = web.serving.CLOSING = 1

if __name__ == "__main__":
    from app import main

    main()
