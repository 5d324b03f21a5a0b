"""Compare runs: python src/compare.py logs/sweeps/NAME status=true watch=true."""

from scorelab.app.compare import main

if __name__ == "__main__":
    main()
