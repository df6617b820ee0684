"""Where a kernel's interpreter comes from: detection, recipes, and the builders that follow them."""
