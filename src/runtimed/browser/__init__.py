"""One Chromium: found, started, watched, shown to clients and driven for them. No daemon is known here."""
