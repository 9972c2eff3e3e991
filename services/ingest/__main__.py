"""`python -m services.ingest`."""

from services.ingest.app import run
from services.runtime.service import main

if __name__ == "__main__":
    main(run)
