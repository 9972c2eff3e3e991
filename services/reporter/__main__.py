"""`python -m services.reporter`: run the service."""

from services.reporter.app import run
from services.runtime.service import main

if __name__ == "__main__":
    main(run)
