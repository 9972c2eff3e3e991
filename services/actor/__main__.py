"""`python -m services.actor`."""

from services.actor.app import run
from services.runtime.service import main

if __name__ == "__main__":
    main(run)
