"""One Chromium: found, started, watched, shown to clients and driven for them. Nothing here knows the daemon."""
