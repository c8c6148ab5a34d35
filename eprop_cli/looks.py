"""What figures can be told about how they look: names and limits, for options and config keys alike."""

FORMATS = ("png", "pdf", "svg")
STYLES = ("default", "paper", "talk", "matplotlibrc")
BANDS = ("range", "std", "ci95")
LEAST_WIDTH, MOST_WIDTH = 80, 1000  # mm
LEAST_DPI, MOST_DPI = 10, 1200  # letters of less vanish, a figure of more takes gigabytes of memory
