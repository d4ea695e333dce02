"""The service with a second for what otherwise has many: `python -m tests.support.impatient`."""

import web.connection
import web.serving

# Here and not below, so that the workers, which import this module, too, have it as well.
web.connection.HEAD_TIMEOUT = web.connection.READ_TIMEOUT = web.connection.LINGER = 1
web.connection.CHECK = 0.1
web.serving.KEEP_ALIVE = web.serving.CLOSING = 1

if __name__ == "__main__":
    from app import main

    main()
