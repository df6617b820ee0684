"""The names of other tools for actions and fields, for "did you mean" in errors."""

from __future__ import annotations

from typing import Final

__all__ = ["ELSEWHERE", "METHODS"]

METHODS: Final[dict[str, str]] = {
    **dict.fromkeys(("screenshot", "take_screenshot", "picture"), "screenshot"),
    **dict.fromkeys(("observe", "snapshot", "get_state"), "observe"),
    **dict.fromkeys(("scrape", "extract", "get_text", "get_content", "read"), "scrape"),
    **dict.fromkeys(("console", "requests", "downloads", "get_cookies", "set_cookies", "save_profile"), "{}"),
}
"""Names that people use for actions → the session's method that does it; `{}` stands for the same name."""

ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("navigate", "open", "open_url", "visit", "load", "go", "go_to", "go_to_url", "get"), ("goto",)),
    **dict.fromkeys(("refresh", "reload_page"), ("reload",)),
    **dict.fromkeys(("back", "navigate_back", "previous"), ("go_back",)),
    **dict.fromkeys(("forward", "navigate_forward", "next"), ("go_forward",)),
    **dict.fromkeys(("tap", "press_button", "left_click", "mouse_click", "click_element"), ("click",)),
    **dict.fromkeys(("double_click", "doubleclick", "dblclick"), ("click count=2",)),
    **dict.fromkeys(("right_click", "context_click", "contextmenu"), ("click button='right'",)),
    **dict.fromkeys(("input", "input_text", "write", "enter_text", "set_value", "set_text", "set"), ("fill",)),
    **dict.fromkeys(("send_keys", "press_sequentially", "type_text", "keyboard_type", "insert_text"), ("type",)),
    **dict.fromkeys(("press", "key", "keypress", "key_press", "hotkey", "keyboard", "send_key"), ("press_key", "key")),
    **dict.fromkeys(("tick", "toggle", "set_checked", "switch"), ("check",)),
    **dict.fromkeys(("uncheck", "untick"), ("check value=False",)),
    **dict.fromkeys(("select", "choose", "select_dropdown", "dropdown"), ("select_option",)),
    **dict.fromkeys(("mouse_move", "move_mouse", "mouseover", "move_to"), ("hover",)),
    **dict.fromkeys(("drag_and_drop", "drag_to", "drop"), ("drag",)),
    **dict.fromkeys(("drop_file", "dropzone"), ("drop_files",)),
    **dict.fromkeys(("upload", "set_input_files", "attach"), ("upload_file",)),
    **dict.fromkeys(("sleep", "pause", "wait_for", "wait_for_selector"), ("wait",)),
    **dict.fromkeys(("evaluate", "eval", "js", "javascript", "execute_script", "run_js"), ("evaluate_js",)),
    **dict.fromkeys(("accept_dialog", "alert", "dialog", "accept"), ("handle_dialog",)),
    **dict.fromkeys(("dismiss_dialog", "dismiss"), ("handle_dialog accept=False",)),
    **dict.fromkeys(("open_tab", "new_page"), ("new_tab",)),
    **dict.fromkeys(("select_tab", "activate_tab"), ("switch_tab",)),
    **dict.fromkeys(("close", "close_page"), ("close_tab",)),
    **dict.fromkeys(("text", "content", "option", "keys"), ("value", "name", "key", "text")),
    **dict.fromkeys(("css", "xpath", "locator"), ("selector",)),
    **dict.fromkeys(("index", "element", "element_id", "node"), ("ref",)),
    **dict.fromkeys(("address", "href", "link"), ("url",)),
    **dict.fromkeys(("expression", "script", "function"), ("code",)),
    **dict.fromkeys(("file", "files", "paths", "file_path"), ("path",)),
    **dict.fromkeys(("label", "title", "accessible_name"), ("name", "value")),
    **dict.fromkeys(("ms", "milliseconds", "time", "duration"), ("seconds",)),
    **dict.fromkeys(("target", "destination", "end"), ("to", "selector")),
    **dict.fromkeys(("source", "from", "start"), ("code", "selector")),
    **dict.fromkeys(("enter", "submit"), ("press_enter", "press_key key='Enter'")),
    "download": ("download_file",),
    "clicks": ("count",),
    "tab_id": ("tab",),
}
"""Other tools' names of actions and fields → our names for them; the first one that is valid in the place counts."""
