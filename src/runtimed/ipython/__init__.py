"""The magics, and how outputs are shown in IPython."""
