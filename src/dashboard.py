"""Write the W&B dashboard of a project: ``python src/dashboard.py --help``."""

from scorelab.tracking.dashboard import main

if __name__ == "__main__":
    main()
