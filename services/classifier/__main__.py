"""`python -m services.classifier`: run the service."""

from services.classifier.app import run
from services.runtime.service import main

if __name__ == "__main__":
    main(run)
